// Attention that runs again in backward: on the kernel that it ran on in forward.
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "small_gpt.h"

namespace ebbtide::offload {
namespace {

// What each run of its attention found around it.
struct WatchingImpl : BlockImpl {
  struct Run {
    bool is_training, may_use_flash;
    std::int64_t preferred;
    bool operator==(const Run&) const = default;
  };
  std::vector<Run> runs;

  at::Tensor attention(const Tensors& parts) {
    at::Context& torch = at::globalContext();
    runs.push_back({at::GradMode::is_enabled() && parts[0].requires_grad(),
                    torch.userEnabledFlashSDP(),
                    static_cast<std::int64_t>(torch.sDPPriorityOrder()[0])});
    return BlockImpl::attention(parts);
  }
};

TEST(RecomputedAttention, RunsAsInTrainingBothTimesOnWhatForwardWasAllowed) {
  at::Context& torch = at::globalContext();
  const auto order = [](at::SDPBackend first, at::SDPBackend second) {
    return std::vector{static_cast<std::int64_t>(first), static_cast<std::int64_t>(second),
                       std::int64_t{2}, std::int64_t{3}, std::int64_t{4}};
  };
  Options again;
  again.alpha = 0;
  again.mini_sequence = 16;
  again.keep_last = 0;
  again.host = std::int64_t{64} << 20;
  again.recomputes_attention = true;
  Session session(at::kCPU, again);
  const auto layer = std::make_shared<WatchingImpl>();
  const std::vector<std::shared_ptr<torch::nn::Module>> layers{layer};
  const auto x = at::randn({1, 40, kWidth}).requires_grad_();
  torch.setSDPUseFlash(false);
  torch.setSDPPriorityOrder(order(at::SDPBackend::math, at::SDPBackend::flash_attention));
  const auto y = run_layers<WatchingImpl>(session, layers, x);
  torch.setSDPUseFlash(true);
  torch.setSDPPriorityOrder(order(at::SDPBackend::flash_attention, at::SDPBackend::math));
  y.sum().backward();
  const WatchingImpl::Run wanted{true, false, static_cast<std::int64_t>(at::SDPBackend::math)};
  EXPECT_EQ(layer->runs, (std::vector{wanted, wanted}));
  EXPECT_TRUE(torch.userEnabledFlashSDP());
  EXPECT_EQ(torch.sDPPriorityOrder()[0], at::SDPBackend::flash_attention);
}

}  // namespace
}  // namespace ebbtide::offload
