#include "hooks/torch_backward.h"

#include <dlfcn.h>

namespace ebbtide {
namespace {

// torch::autograd::get_current_graph_task_id(), looked up in the libtorch_cpu that is loaded already:
// linking it would tie the adaptors to a library they need for this one thread-local alone.
int (*graph_task_id)() = nullptr;

}  // namespace

bool (*find_backward_probe())() {
  void* torch = ::dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  if (torch == nullptr) return nullptr;
  void* symbol = ::dlsym(torch, "_ZN5torch8autograd25get_current_graph_task_idEv");
  if (symbol == nullptr) return nullptr;
  graph_task_id = reinterpret_cast<int (*)()>(symbol);
  return [] { return graph_task_id() != -1; };
}

}  // namespace ebbtide
