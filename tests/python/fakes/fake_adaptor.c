/* A stand-in for libebbtide_torch_cpu.so, _cuda.so and _store.so: installs nothing and notes that
 * it was asked to. FAKE_TORCH_VERSION and FAKE_KIND are given by the compiler's command line. */
#include <stdio.h>
#include <stdlib.h>

#define JOIN(a, b, c) a##b##c
#define INSTALL(kind) JOIN(ebbtide_torch_, kind, _install)
#define TEXT(x) #x
#define NAME(kind) TEXT(kind)

__attribute__((visibility("default"))) const char* ebbtide_torch_version(void) {
  return FAKE_TORCH_VERSION;
}

__attribute__((visibility("default"))) int INSTALL(FAKE_KIND)(void) {
  const char* path = getenv("FAKE_LOG");
  FILE* file = path ? fopen(path, "a") : NULL;
  if (file) {
    fprintf(file, "install_%s 0 0\n", NAME(FAKE_KIND));
    fclose(file);
  }
  return 0;
}
