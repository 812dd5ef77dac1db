#include "hooks/torch_offload/saved_hooks.h"

#include <torch/csrc/autograd/engine.h>

#include <mutex>
#include <stdexcept>

namespace ebbtide::offload {
namespace {

using torch::autograd::Engine;

thread_local SavingObserver* innermost = nullptr;

class HookedEngine final : public Engine {
 public:
  static Engine& instance() {
    static auto* engine = new HookedEngine;  // its threads may wait for work when the process ends
    return *engine;
  }

  std::unique_ptr<torch::autograd::SavedVariableHooks> get_default_saved_variable_hooks() override {
    return innermost == nullptr ? nullptr : innermost->hooks();
  }
};

}  // namespace

void install_engine() {
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  Engine& current = Engine::get_default_engine();
  if (&current == &HookedEngine::instance()) return;
  if (&current != &Engine::get_base_engine()) {
    throw std::runtime_error(
        "ebbtide offload: this process's autograd is not LibTorch's own; in Python programs use "
        "ebbtide.offload(model)");
  }
  torch::autograd::set_default_engine_stub(&HookedEngine::instance);
}

HookScope::HookScope(SavingObserver* observer) : outer_(innermost) { innermost = observer; }

HookScope::~HookScope() { innermost = outer_; }

}  // namespace ebbtide::offload
