#include "hooks/torch_offload/saved_hooks.h"

#include <ATen/SavedTensorHooks.h>
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/csrc/autograd/engine.h>

#include <mutex>
#include <utility>

namespace ebbtide::offload {

using torch::autograd::Engine;

namespace {

thread_local HookScope* innermost = nullptr;

// How torch holds a node: a shared_ptr, in later versions an intrusive_ptr.
template <class Function>
struct SecondParameter;
template <class Result, class First, class Second, class... Others>
struct SecondParameter<Result (Engine::*)(First, Second, Others...)> {
  using Type = Second;
};
using NodeHandle = SecondParameter<decltype(&Engine::execute_with_graph_task)>::Type;

}  // namespace

// See Note [An engine in front].
class HookedEngine final : public Engine {
 public:
  // Threads of devices may still ask when the process ends: it is never destroyed.
  static Engine& instance() {
    static auto* engine = new HookedEngine(Engine::get_default_engine());
    return *engine;
  }
  explicit HookedEngine(Engine& behind) : behind_(behind) {}

  torch::autograd::variable_list execute(const torch::autograd::edge_list& roots,
                                         const torch::autograd::variable_list& inputs,
                                         bool keep_graph, bool create_graph, bool accumulate_grad,
                                         const torch::autograd::edge_list& outputs) override {
    return behind_.execute(roots, inputs, keep_graph, create_graph, accumulate_grad, outputs);
  }

  c10::intrusive_ptr<at::ivalue::Future> execute_with_graph_task(
      const std::shared_ptr<torch::autograd::GraphTask>& graph_task,
      NodeHandle graph_root, torch::autograd::InputBuffer&& input_buffer) override {
    return behind_.execute_with_graph_task(graph_task, std::move(graph_root),
                                           std::move(input_buffer));
  }

  std::unique_ptr<torch::autograd::AnomalyMetadata> make_anomaly_metadata() override {
    return behind_.make_anomaly_metadata();
  }

  std::unique_ptr<torch::autograd::SavedVariableHooks> get_default_saved_variable_hooks() override {
    if (innermost != nullptr && innermost->is_innermost()) return innermost->observer_->hooks();
    return behind_.get_default_saved_variable_hooks();
  }

 private:
  Engine& behind_;
};

bool has_foreign_engine() {
  const Engine& current = Engine::get_default_engine();
  return dynamic_cast<const HookedEngine*>(&current) == nullptr &&
         &current != &Engine::get_base_engine();
}

void install_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
    HookedEngine::instance();  // sees the engine that is there now
    torch::autograd::set_default_engine_stub(&HookedEngine::instance);
  });
}

HookScope::HookScope(SavingObserver* observer)
    : observer_(observer),
      outer_(innermost),
      python_hooks_(at::SavedTensorDefaultHooks::get_tls_state().stack.size()) {
  innermost = this;
}

HookScope::~HookScope() { innermost = outer_; }

bool HookScope::is_innermost() const {
  const auto& python = at::SavedTensorDefaultHooks::get_tls_state();
  return !python.is_tracing && python.stack.size() == python_hooks_;
}

}  // namespace ebbtide::offload
