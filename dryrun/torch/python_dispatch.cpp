#include "dryrun/torch/python_dispatch.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/PyInterpreter.h>
#include <c10/core/impl/PyInterpreterHooks.h>

namespace ebbtide::dryrun {

bool is_for_python(const c10::OperatorHandle& op, c10::DispatchKeySet keys) {
  return keys.has(c10::DispatchKey::Python) &&
         !op.hasKernelForDispatchKey(c10::DispatchKey::Python);
}

void run_in_python(const c10::OperatorHandle& op, torch::jit::Stack* stack, c10::DispatchKey ours) {
  // Autograd and the like have been; Python may call Python again.
  const c10::DispatchKeySet until(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::Python);
  const c10::DispatchKeySet above =
      (c10::DispatchKeySet(c10::DispatchKeySet::FULL) - until).remove(c10::DispatchKey::Python);
  const c10::impl::ExcludeDispatchKeyGuard guard(above.remove(ours));
  (**c10::impl::getGlobalPyInterpreter()).dispatch(op, stack);
}

}  // namespace ebbtide::dryrun
