#include "hooks/torch_adaptor.h"
#include "hooks/torch_startup.h"

namespace ebbtide {
namespace {

Status install_cpu_adaptor() {
  if (ebbtide_torch_cpu_install() == EBBTIDE_OK) return Nothing{};
  return Error{ErrorCode::kUnsupported, "the CPU adaptor could not be installed"};
}

__attribute__((constructor)) void start_with_program() { start_torch_adaptor({"cpu", &install_cpu_adaptor}); }

}  // namespace
}  // namespace ebbtide
