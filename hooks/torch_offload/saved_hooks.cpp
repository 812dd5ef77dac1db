#include "hooks/torch_offload/saved_hooks.h"

#include <torch/csrc/autograd/engine.h>

#include <mutex>
#include <stdexcept>
#include <utility>

namespace ebbtide::offload {
namespace {

using torch::autograd::Engine;

thread_local SavingObserver* innermost = nullptr;

// See Note [An engine in front].
class HookedEngine final : public Engine {
 public:
  static Engine& instance() {
    static auto* engine =
        new HookedEngine;  // threads of devices may still ask when the process ends
    return *engine;
  }

  torch::autograd::variable_list execute(const torch::autograd::edge_list& roots,
                                         const torch::autograd::variable_list& inputs,
                                         bool keep_graph, bool create_graph, bool accumulate_grad,
                                         const torch::autograd::edge_list& outputs) override {
    return get_base_engine().execute(roots, inputs, keep_graph, create_graph, accumulate_grad,
                                     outputs);
  }

  c10::intrusive_ptr<at::ivalue::Future> execute_with_graph_task(
      const std::shared_ptr<torch::autograd::GraphTask>& graph_task,
      std::shared_ptr<torch::autograd::Node> graph_root,
      torch::autograd::InputBuffer&& input_buffer) override {
    return get_base_engine().execute_with_graph_task(graph_task, std::move(graph_root),
                                                     std::move(input_buffer));
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
