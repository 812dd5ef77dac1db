// Row-wise work outside of layers: LM head and loss, mini-sequences, and scopes that save on the
// host.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_gpt.h"

namespace ebbtide::offload {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

Session session_of(std::int64_t piece) {
  Options options;
  options.mini_sequence = piece;
  options.host = std::int64_t{64} << 20;
  return Session(at::kCPU, options);
}

struct Head {
  at::Tensor hidden, weight, bias;
  explicit Head(std::int64_t tokens, at::ScalarType type = at::kDouble) {
    torch::manual_seed(3);
    hidden = at::randn({tokens, kWidth}, type).requires_grad_();
    weight = at::randn({kWords, kWidth}, type).requires_grad_();
    bias = at::randn({kWords}, type).requires_grad_();
  }
  Tensors gradients() const { return {hidden.grad(), weight.grad(), bias.grad()}; }
};

at::Tensor reference(const Head& head, const at::Tensor& labels, const LossOptions& options) {
  auto logits = at::linear(head.hidden, head.weight, head.bias);
  if (options.softcap > 0) logits = at::tanh(logits / options.softcap) * options.softcap;
  auto loss = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum, options.ignore_index,
                                     options.label_smoothing);
  const auto counted = labels.ne(options.ignore_index);
  if (options.z_loss > 0) {
    loss = loss + options.z_loss * (at::logsumexp(logits, -1).square() * counted).sum();
  }
  return options.divisor ? loss / *options.divisor : loss / counted.sum();
}

TEST(LinearCrossEntropy, AgreesWithTheWholeOneInDouble) {
  std::vector<LossOptions> all(6);
  all[1].label_smoothing = 0.1;
  all[2].z_loss = 1e-2;
  all[3].softcap = 2;
  all[4].ignore_index = 5;
  all[5].divisor = 7;
  for (const std::int64_t tokens : {1, 63, 64, 65}) {
    for (const LossOptions& options : all) {
      Head whole(tokens), pieced(tokens);
      auto labels = at::randint(kWords, {tokens}, at::kLong);
      labels.select(0, 0).fill_(3);  // one at least counts
      if (tokens > 2) labels.narrow(0, 1, tokens / 3).fill_(options.ignore_index);
      const auto wanted = reference(whole, labels, options);
      Session session = session_of(16);
      const auto found =
          linear_cross_entropy(session, pieced.hidden, pieced.weight, labels, options, pieced.bias);
      (wanted * 2.5).backward();
      (found * 2.5).backward();
      EXPECT_LT(difference(found, wanted), 1e-10);
      EXPECT_LT(difference(pieced.gradients(), whole.gradients()), 1e-10);
      EXPECT_EQ(session.stats().head_calls, 1);
    }
  }
}

TEST(LinearCrossEntropy, WithEveryLabelIgnoredIsNotANumberAsInTorch) {
  Head head(20);
  Session session = session_of(8);
  const auto labels = at::full({20}, -100, at::kLong);
  EXPECT_TRUE(linear_cross_entropy(session, head.hidden, head.weight, labels).isnan().item<bool>());
}

TEST(LinearCrossEntropy, TakesGradientsOfWhatNeedsThem) {
  Head whole(40), pieced(40);
  const auto labels = at::randint(kWords, {40}, at::kLong);
  for (const Head* head : {&whole, &pieced}) head->weight.requires_grad_(false);
  reference(whole, labels, {}).backward();
  Session session = session_of(8);
  linear_cross_entropy(session, pieced.hidden, pieced.weight, labels, {}, pieced.bias).backward();
  EXPECT_FALSE(pieced.weight.grad().defined());
  EXPECT_LT(difference(pieced.hidden.grad(), whole.hidden.grad()), 1e-10);
  EXPECT_LT(difference(pieced.bias.grad(), whole.bias.grad()), 1e-10);
}

TEST(LinearCrossEntropy, TakesAComputedAndTiedWeight) {
  Head whole(40), pieced(40);
  const auto labels = at::randint(kWords, {40}, at::kLong);
  at::cross_entropy_loss(at::linear(whole.hidden + whole.weight[0], whole.weight * 2), labels)
      .backward();
  Session session = session_of(8);
  linear_cross_entropy(session, pieced.hidden + pieced.weight[0], pieced.weight * 2, labels)
      .backward();
  EXPECT_LT(difference(pieced.weight.grad(), whole.weight.grad()), 1e-10);
}

TEST(LinearCrossEntropy, WrongArgumentsAreOneClearLine) {
  Head head(20);
  Session session = session_of(8);
  const auto labels = at::randint(kWords, {20}, at::kLong);
  LossOptions smoothing;
  smoothing.label_smoothing = 2;
  const auto call = [&](const at::Tensor& weight, const at::Tensor& of,
                        const LossOptions& options) {
    return [&, weight, of, options] {
      linear_cross_entropy(session, head.hidden, weight, of, options);
    };
  };
  EXPECT_THAT(call(head.weight, labels, smoothing),
              ThrowsMessage<std::invalid_argument>(HasSubstr("label_smoothing=2")));
  EXPECT_THAT(call(head.weight, labels.narrow(0, 0, 3), {}),
              ThrowsMessage<std::invalid_argument>(HasSubstr("one label for each token")));
  EXPECT_THAT(call(head.weight.t(), labels, {}),
              ThrowsMessage<std::invalid_argument>(HasSubstr("words x width")));
}

TEST(MiniSequence, AgreesWithTheWholeOneInDouble) {
  for (const std::int64_t length : {1, 15, 16, 17}) {
    torch::nn::Linear mlp(kWidth, kWidth);
    mlp->to(at::kDouble);
    auto x = at::randn({2, length, kWidth}, at::kDouble).requires_grad_();
    at::gelu(mlp(x)).square().sum().backward();
    const Tensors wanted{x.grad().clone(), mlp->weight.grad().clone(), mlp->bias.grad().clone()};
    x.mutable_grad().zero_();
    mlp->zero_grad();
    const auto run = [&](const at::Tensor& piece) { return at::gelu(mlp(piece)); };
    mini_sequence(run, mlp->parameters(), x, 4).square().sum().backward();
    EXPECT_LT(difference({x.grad(), mlp->weight.grad(), mlp->bias.grad()}, wanted), 1e-10);
  }
}

TEST(MiniSequence, TakesAModuleAndDrawsTheSameRandomNumbersAgain) {
  torch::nn::Linear mlp(kWidth, kWidth);
  auto x = at::ones({1, 40, kWidth}).requires_grad_();
  EXPECT_LT(difference(mini_sequence(mlp.ptr(), x, 7), mlp(x)), 1e-5);
  const auto drop = [](const at::Tensor& piece) { return at::dropout(piece, 0.5, true); };
  const auto y = mini_sequence(drop, {}, x, 7);
  const auto next = at::rand({1});
  y.sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), y));  // dropout of ones: its gradient is its output
  EXPECT_FALSE(at::equal(at::rand({1}), next));
}

TEST(MiniSequence, WrongArgumentsAreOneClearLine) {
  torch::nn::Linear mlp(kWidth, kWidth);
  const auto x = at::ones({1, 40, kWidth});
  EXPECT_THAT([&] { mini_sequence(mlp.ptr(), x, 0); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("tokens=0")));
  const auto run = [](const at::Tensor& piece) { return piece; };
  EXPECT_THAT([&] { mini_sequence(run, {mlp->weight * 2}, x, 4); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("pass the leaves")));
}

TEST(SaveOnHost, GivesTheSameBitsAndLeavesNothingBehind) {
  const auto tokens = some_tokens(2, 60);
  Gpt plain = make_gpt(2), saving = make_gpt(2);
  const auto wanted = plain->plain(tokens);
  wanted.backward();
  Session session = session_of(0);
  at::Tensor loss;
  {
    const SaveOnHost scope(session);
    loss = saving->plain(tokens);
  }
  EXPECT_GT(live_on_host(session), 0);
  EXPECT_GT(session.stats().tagged_bytes, 0);
  loss.backward();
  EXPECT_TRUE(at::equal(loss, wanted));
  EXPECT_TRUE(same_bits(gradients_of(*saving), gradients_of(*plain)));
  loss.reset();
  EXPECT_EQ(live_on_host(session), 0);
}

TEST(SaveOnHost, LeftByAnExceptionSwapsNothing) {
  Session session = session_of(0);
  auto x = at::ones({64, 64}).requires_grad_();
  at::Tensor y;
  try {
    const SaveOnHost scope(session);
    y = (x * 2).square();
    throw std::domain_error("the user's own");
  } catch (const std::domain_error&) {
  }
  EXPECT_EQ(session.stats().host->swapped_out_bytes, 0);
  y.sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), at::full({64, 64}, 8.0)));
}

TEST(SaveOnHost, TheInnermostScopeCounts) {
  Session inner = session_of(0), outer = session_of(0);
  auto x = at::ones({64, 64}).requires_grad_();
  at::Tensor y;
  {
    const SaveOnHost outside(outer);
    const SaveOnHost inside(inner);
    y = (x * 2).square();
  }
  EXPECT_GT(inner.stats().tagged_bytes, 0);
  EXPECT_EQ(outer.stats().tagged_bytes, 0);
  y.sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), at::full({64, 64}, 8.0)));
}

TEST(SaveOnHost, NoticesInPlaceChanges) {
  Session session = session_of(0);
  auto x = at::ones({64, 64}).requires_grad_();
  auto doubled = x * 2;
  at::Tensor y;
  {
    const SaveOnHost scope(session);
    y = doubled.square();
  }
  doubled.detach().add_(1);
  EXPECT_THAT([&] { y.sum().backward(); },
              ThrowsMessage<std::runtime_error>(HasSubstr("changed in place")));
}

}  // namespace
}  // namespace ebbtide::offload
