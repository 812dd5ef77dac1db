/* A stand-in for libebbtide.so: the whole C interface, serving nothing. What is called is appended to
 * the file $FAKE_LOG, so that a test sees what Python asked for. Settings: EBBTIDE=1, observe or 0;
 * anything else is refused in words. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hooks/ebbtide.h"

static const char* reason = "";

static void note(const char* what, int64_t a, int64_t b) {
  const char* path = getenv("FAKE_LOG");
  FILE* file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s %lld %lld\n", what, (long long)a, (long long)b);
  fclose(file);
}

EBBTIDE_API const char* ebbtide_version(void) { return "0.1.0"; }
EBBTIDE_API const char* ebbtide_last_error(void) { return reason; }

EBBTIDE_API ebbtide_status ebbtide_check_settings(void) {
  const char* value = getenv("EBBTIDE");
  if (!value || !strcmp(value, "0") || !strcmp(value, "1") || !strcmp(value, "observe")) {
    return EBBTIDE_OK;
  }
  reason = "EBBTIDE is wrong: allowed are 0, 1, observe";
  return EBBTIDE_INVALID_ARGUMENT;
}

EBBTIDE_API int ebbtide_mode(void) {
  const char* value = getenv("EBBTIDE");
  if (value && !strcmp(value, "1")) return 2;
  return value && !strcmp(value, "observe") ? 1 : 0;
}

EBBTIDE_API ebbtide_status ebbtide_mark(ebbtide_mark_kind kind, uint64_t source) {
  note("mark", kind, source != 0);
  return EBBTIDE_OK;
}
EBBTIDE_API ebbtide_status ebbtide_mark_input(ebbtide_mark_kind kind, uint64_t source, const int64_t* extents, size_t count) {
  (void)extents;
  (void)count;
  return ebbtide_mark(kind, source);
}
EBBTIDE_API ebbtide_status ebbtide_step(void) {
  note("step", 0, 0);
  return EBBTIDE_OK;
}
EBBTIDE_API ebbtide_status ebbtide_warmup_begin(void) {
  note("warmup_begin", 0, 0);
  return EBBTIDE_OK;
}
EBBTIDE_API ebbtide_status ebbtide_warmup_end(void) {
  note("warmup_end", 0, 0);
  return EBBTIDE_OK;
}
EBBTIDE_API ebbtide_status ebbtide_wait_for_plans(void) {
  note("wait", 0, 0);
  return EBBTIDE_OK;
}

EBBTIDE_API ebbtide_status ebbtide_get_step_plan(int device, int64_t* height_bytes, int64_t* budget_bytes) {
  note("step_plan", device, 0);
  *height_bytes = *budget_bytes = 0;
  return EBBTIDE_OK;
}

EBBTIDE_API ebbtide_status ebbtide_get_stats(int device, ebbtide_stats* stats) {
  if (stats->struct_size != sizeof *stats) abort();
  if (device != -1) {
    reason = "no adaptor serves that device";
    return EBBTIDE_UNSUPPORTED;
  }
  memset(stats, 0, sizeof *stats);
  stats->device = device;
  stats->serving = 1;
  stats->peak_live_bytes = 1000;
  stats->peak_reserved_bytes = 1250;
  stats->settled_allocated_bytes = 400;
  stats->settled_planned_bytes = 300;
  stats->divergences[EBBTIDE_DIVERGED_OUTGROWN] = 7;
  strcpy(stats->first_divergence, "the first one");
  stats->lost_events = 3;
  return EBBTIDE_OK;
}

EBBTIDE_API size_t ebbtide_devices(int* devices, size_t capacity) {
  if (capacity > 0) devices[0] = -1;
  return 1;
}

EBBTIDE_API size_t ebbtide_report(char* buffer, size_t capacity) {
  return (size_t)snprintf(buffer, capacity, "a report\nof two lines\n");
}

EBBTIDE_API ebbtide_status ebbtide_trace_open(const char* path, ebbtide_trace** trace) {
  (void)path;
  *trace = NULL;
  reason = "not a trace file";
  return EBBTIDE_BAD_TRACE;
}
EBBTIDE_API size_t ebbtide_trace_next(ebbtide_trace* trace, const ebbtide_event** events) {
  (void)trace;
  (void)events;
  return 0;
}
EBBTIDE_API ebbtide_status ebbtide_trace_get_info(const ebbtide_trace* trace, ebbtide_trace_info* info) {
  (void)trace;
  (void)info;
  return EBBTIDE_OK;
}
EBBTIDE_API void ebbtide_trace_close(ebbtide_trace* trace) { (void)trace; }
EBBTIDE_API ebbtide_status ebbtide_check_pickle(const char* bytes, size_t size, const char* source) {
  (void)bytes;
  (void)size;
  (void)source;
  return EBBTIDE_OK;
}
EBBTIDE_API ebbtide_status ebbtide_name_owner(const char* text, uint32_t* name) {
  (void)text;
  *name = 0;
  return EBBTIDE_OK;
}
EBBTIDE_API uint32_t ebbtide_set_owner(uint32_t name) { return name; }
EBBTIDE_API void ebbtide_trace_layer(int device, uint32_t name, int64_t kept, int64_t swapped, int64_t recomputed) {
  (void)device, (void)name, (void)kept, (void)swapped, (void)recomputed;
}

EBBTIDE_API ebbtide_status ebbtide_summarize_trace(const char* path, ebbtide_trace_summary* summary) {
  (void)path;
  (void)summary;
  reason = "not a trace file";
  return EBBTIDE_BAD_TRACE;
}

EBBTIDE_API ebbtide_status ebbtide_finish(void) {
  note("finish", 0, 0);
  return EBBTIDE_OK;
}
