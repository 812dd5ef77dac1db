#include "dryrun/torch/step_watch.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/AutogradState.h>

#include <atomic>
#include <mutex>

#include "dryrun/core/export.h"
#include "dryrun/core/report.h"
#include "dryrun/core/simulator.h"
#include "dryrun/torch/operator_call.h"

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

bool has_gradient(const at::Tensor& tensor) {
  return tensor.defined() && tensor.is_leaf() && tensor.requires_grad() && tensor.grad().defined();
}

// Of a list the first tensor tells.
bool writes_parameter(const OperatorFacts& facts, const torch::jit::Stack& stack) {
  const c10::IValue* arguments = stack.data() + (stack.size() - facts.roles.size());
  for (std::size_t i = 0; i < facts.roles.size(); ++i) {
    if (facts.roles[i] == ArgumentRole::kRead) continue;
    if (arguments[i].isTensor() && has_gradient(arguments[i].toTensor())) return true;
    if (!arguments[i].isTensorList() || arguments[i].toTensorList().empty()) continue;
    if (has_gradient(arguments[i].toTensorList().get(0))) return true;
  }
  return false;
}

class Watch {
 public:
  void see(const StepSign& sign) {
    note(sign);
    const int last = Simulator::instance().settings().last_step;
    if (last > 0 && steps_ >= last) end_program();  // the lock is free: the report asks this watch
  }
  void note(const StepSign& sign) {
    const std::lock_guard lock(mutex_);
    if (sign.is_in_backward) {
      had_backward_ = saw_backward_ = is_beside_ = true;
      is_updated_ = is_updated_ || sign.is_update;
      return;
    }
    if (is_beside_ && sign.is_recorded) is_beside_ = false;
    if (sign.is_update || sign.writes) {
      if (!had_backward_ || sign.is_forward) return;
      knows_updates_ = knows_updates_ || sign.is_update;
      is_updated_ = is_updated_ || sign.is_update || !knows_updates_;
      return;
    }
    if (!sign.is_forward) return;
    end_step();
    count_tokens(sign);
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
    table_ = nullptr;
  }

  // Tokens are what is looked up in the first table of a step; others hold positions and the like.
  void count_tokens(const StepSign& sign) {
    if (sign.table == nullptr) return;
    if (table_ == nullptr) table_ = sign.table;
    if (table_ == sign.table) Simulator::instance().timeline().add_tokens(sign.tokens);
  }

  std::mutex mutex_;
  bool had_backward_ = false;
  bool is_updated_ = false;
  bool knows_updates_ = false;  // the program has shown what its updates are
  std::atomic<int> steps_ = 0;
  std::atomic<bool> saw_backward_ = false;
  std::atomic<bool> is_beside_ = false;  // see is_beside_training
  const void* table_ = nullptr;  // the step's first
};

Watch& watch() {
  static Watch* instance = new Watch();
  return *instance;
}

}  // namespace

StepSign step_sign(const OperatorFacts& facts, const torch::jit::Stack& stack) {
  StepSign sign;
  sign.is_in_backward = is_in_backward();
  sign.is_forward = may_be_recorded();
  // A copy may be autocast's, which it records wherever it makes one.
  sign.is_recorded = facts.kind != OperatorKind::kCopy && is_recorded(stack, facts.roles.size());
  sign.writes = facts.writes && facts.kind == OperatorKind::kCompute && !facts.moves;
  sign.is_update = facts.updates_parameters || (facts.writes && !sign.is_forward && writes_parameter(facts, stack));
  if (facts.is_embedding) {
    const std::size_t begin = stack.size() - facts.roles.size();
    const at::Tensor& weight = stack[begin].toTensor();
    // Its memory may come and go (FSDP's), what holds it does not.
    if (weight.has_storage()) sign.table = weight.storage().unsafeGetStorageImpl();
    sign.tokens = static_cast<double>(stack[begin + 1].toTensor().numel());
  }
  return sign;
}

StepSign step_sign_of_kernel() {
  return {.is_in_backward = is_in_backward(), .is_forward = may_be_recorded(), .writes = true};
}

void watch_step(const StepSign& sign) { watch().see(sign); }

void end_watched_step() { watch().end(); }

bool saw_backward() { return watch().saw_backward(); }

bool is_beside_training() { return watch().is_beside(); }

}  // namespace ebbtide::dryrun

// Called by the package after an optimizer's step: one on the host, or of kernels of others, shows nothing of it here.
extern "C" EBBTIDE_DRYRUN_API void ebbtide_dryrun_note_update() {
  ebbtide::dryrun::watch_step({.is_update = true});
}
