#include "dryrun/torch/step_watch.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/AutogradState.h>

#include <atomic>
#include <mutex>

#include "dryrun/core/report.h"
#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

namespace {

// Whether a function with a backward of its own runs its forward: what torch.compile makes of a model, or
// checkpointing. Gradients are off in it as under no_grad, and so are forward ones, which no_grad leaves alone.
bool is_in_function() {
  const c10::AutogradState& state = c10::AutogradState::get_tls_state();
  return !state.get_grad_mode() && !state.get_fw_grad_mode() && !state.get_inference_mode();
}

// Of a forward pass, as far as the modes tell.
bool may_be_recorded() { return at::GradMode::is_enabled() || is_in_function(); }

// Whether autograd will want to know of it: what an optimizer or an evaluation works on does not require
// gradients, or they are off. Within a function it is the function that autograd knows of.
bool is_recorded(const torch::jit::Stack& stack, std::size_t argument_count) {
  if (!at::GradMode::is_enabled()) return is_in_function();
  for (std::size_t i = stack.size() - argument_count; i < stack.size(); ++i) {
    if (stack[i].isTensor() && stack[i].toTensor().defined() && stack[i].toTensor().requires_grad()) return true;
  }
  return false;
}

class Watch {
 public:
  void see(const OperatorFacts& facts, const torch::jit::Stack& stack, bool is_in_backward) {
    note(facts, stack, is_in_backward);
    const int last = Simulator::instance().settings().last_step;
    if (last > 0 && steps_ >= last) end_program();  // the lock is free: the report asks this watch
  }
  void note(const OperatorFacts& facts, const torch::jit::Stack& stack, bool is_in_backward) {
    const std::lock_guard lock(mutex_);
    if (is_in_backward) {
      had_backward_ = saw_backward_ = is_beside_ = true;
      is_updated_ = is_updated_ || facts.updates_parameters;
      return;
    }
    // A copy may be autocast's, which it records wherever it makes one.
    if (is_beside_ && facts.kind != OperatorKind::kCopy && is_recorded(stack, facts.roles.size())) is_beside_ = false;
    if (facts.writes && facts.kind == OperatorKind::kCompute) {
      is_updated_ = is_updated_ || (had_backward_ && !may_be_recorded());
      return;
    }
    if (!may_be_recorded()) return;
    end_step();
    if (facts.is_embedding) count_tokens(stack, facts);
  }

  bool saw_backward() const { return saw_backward_; }
  bool is_beside() const { return is_beside_; }

  void end() {
    const std::lock_guard lock(mutex_);
    end_step();
  }

 private:
  void end_step() {
    if (!had_backward_ || !is_updated_) return;
    Simulator::instance().timeline().end_step();
    ++steps_;
    had_backward_ = is_updated_ = false;
    vocabulary_ = 0;
  }

  // Tokens are what is looked up in the first table of a step; others hold positions and the like.
  void count_tokens(const torch::jit::Stack& stack, const OperatorFacts& facts) {
    const std::size_t begin = stack.size() - facts.roles.size();
    const at::Tensor weight = stack[begin].toTensor();
    const at::Tensor indices = stack[begin + 1].toTensor();
    if (vocabulary_ == 0) vocabulary_ = weight.numel();
    if (vocabulary_ != weight.numel()) return;
    Simulator::instance().timeline().add_tokens(static_cast<double>(indices.numel()));
  }

  std::mutex mutex_;
  bool had_backward_ = false;
  bool is_updated_ = false;
  std::atomic<int> steps_ = 0;
  std::atomic<bool> saw_backward_ = false;
  std::atomic<bool> is_beside_ = false;  // see is_beside_training
  std::int64_t vocabulary_ = 0;  // elements of the step's first table
};

Watch& watch() {
  static Watch* instance = new Watch();
  return *instance;
}

}  // namespace

void watch_step(const OperatorFacts& facts, const torch::jit::Stack& stack, bool is_in_backward) {
  watch().see(facts, stack, is_in_backward);
}

void end_watched_step() { watch().end(); }

bool saw_backward() { return watch().saw_backward(); }

bool is_beside_training() { return watch().is_beside(); }

}  // namespace ebbtide::dryrun
