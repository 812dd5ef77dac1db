#include "hooks/torch_offload/ambient.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/equal.h>

#include <mutex>

namespace ebbtide::offload {

RandomStates::RandomStates(at::Device device)
    : generator_(at::globalContext().defaultGenerator(device)) {}

at::Tensor RandomStates::now() {
  at::Tensor state;
  {
    const std::scoped_lock lock(generator_.mutex());
    state = generator_.get_state();
  }
  if (!last_.defined() || !at::equal(state, last_)) last_ = state;
  return last_;
}

void RandomStates::set(const at::Tensor& state) {
  const std::scoped_lock lock(generator_.mutex());
  generator_.set_state(state);
}

Autocast::Autocast(at::Device device)
    : kind(device.type()),
      is_enabled(at::autocast::is_autocast_enabled(kind)),
      type(at::autocast::get_autocast_dtype(kind)) {}

AutocastAgain::AutocastAgain(const Autocast& autocast)
    : outer_(at::Device(autocast.kind)), was_cached_(at::autocast::is_autocast_cache_enabled()) {
  at::autocast::increment_nesting();
  at::autocast::set_autocast_enabled(autocast.kind, autocast.is_enabled);
  at::autocast::set_autocast_dtype(autocast.kind, autocast.type);
  at::autocast::set_autocast_cache_enabled(false);
}

AutocastAgain::~AutocastAgain() {
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(outer_.kind, outer_.is_enabled);
  at::autocast::set_autocast_dtype(outer_.kind, outer_.type);
  at::autocast::set_autocast_cache_enabled(was_cached_);
}

AttentionBackends::AttentionBackends() {
  const at::Context& torch = at::globalContext();
  flash_ = torch.userEnabledFlashSDP();
  memory_efficient_ = torch.userEnabledMemEfficientSDP();
  math_ = torch.userEnabledMathSDP();
  cudnn_ = torch.userEnabledCuDNNSDP();
  overrideable_ = torch.userEnabledOverrideableSDP();
  for (const at::SDPBackend backend : at::globalContext().sDPPriorityOrder()) {
    order_.push_back(static_cast<std::int64_t>(backend));
  }
}

void AttentionBackends::allow() const {
  at::Context& torch = at::globalContext();
  torch.setSDPUseFlash(flash_);
  torch.setSDPUseMemEfficient(memory_efficient_);
  torch.setSDPUseMath(math_);
  torch.setSDPUseCuDNN(cudnn_);
  torch.setSDPUseOverrideable(overrideable_);
  torch.setSDPPriorityOrder(order_);
}

}  // namespace ebbtide::offload
