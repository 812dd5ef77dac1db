// The example of docs/offload.md, "In C++", line by line: tests/python/test_libtorch_offload.py
// compares them.
#include <gtest/gtest.h>

#include "small_gpt.h"

namespace ebbtide::offload {
namespace {

TEST(DocsExample, CompilesAndRuns) {
  Gpt model = make_gpt(2);
  auto& blocks = model->blocks;
  auto& head = model->head;
  torch::nn::LayerNorm norm{torch::nn::LayerNormOptions({kWidth})};
  const at::Device device = at::kCPU;
  at::Tensor x = model->words(some_tokens(1, 32)), labels = some_tokens(1, 32);
  // The example begins here.
  ebbtide::offload::Options options;
  options.alpha = 0.5;
  ebbtide::offload::Session session(device, options);
  x = ebbtide::offload::run_layers<BlockImpl>(session, *blocks, x);
  x = ebbtide::offload::mini_sequence(norm.ptr(), x, 1024);
  auto loss = ebbtide::offload::linear_cross_entropy(session, x, head->weight, labels);
  loss.backward();
  std::puts(session.report().c_str());
  // And ends here.
  EXPECT_EQ(session.stats().layers.size(), 2U);
  EXPECT_TRUE(norm->weight.grad().defined());
}

}  // namespace
}  // namespace ebbtide::offload
