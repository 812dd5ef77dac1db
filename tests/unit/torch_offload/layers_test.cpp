// Layers in C++: the same results whatever becomes of their activations, and nothing left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>

#include <array>
#include <cstdlib>

#include "small_gpt.h"

namespace ebbtide::offload {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

Options options(double alpha, std::int64_t piece = 16) {
  Options options;
  options.alpha = alpha;
  options.mini_sequence = piece;
  options.keep_last = 0;
  options.host = 64 * kMiB;
  return options;
}

struct Training {
  std::vector<double> losses;
  Tensors gradients, parameters;
  Stats stats;
};

// Steps on lengths that differ, with dropout.
Training train(const Options& options, int steps = 3) {
  Gpt model = make_gpt(3, at::kFloat, 0.1);
  Session session(at::kCPU, options);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-2));
  Training training;
  for (int step = 0; step < steps; ++step) {
    const std::int64_t length = std::array{50, 64, 33}[static_cast<std::size_t>(step % 3)];
    optimizer.zero_grad();
    const auto loss = model->offloaded(session, some_tokens(2, length));
    loss.backward();
    optimizer.step();
    training.losses.push_back(loss.item<double>());
  }
  training.gradients = gradients_of(*model);
  training.parameters = model->parameters();
  training.stats = session.stats();
  return training;
}

void expect_same_bits(const Training& some, const Training& other) {
  EXPECT_EQ(some.losses, other.losses);
  EXPECT_TRUE(same_bits(some.gradients, other.gradients));
  EXPECT_TRUE(same_bits(some.parameters, other.parameters));
}

TEST(Layers, EveryAlphaGivesTheBitsOfKeepingEverythingForTwentySteps) {
  Options keeps = options(1);
  keeps.host = 0;
  const Training kept = train(keeps, 20);
  EXPECT_FALSE(kept.stats.host.has_value());
  EXPECT_GT(kept.stats.layers[0].kept_bytes, 0);
  EXPECT_EQ(kept.stats.layers[0].recomputed_bytes, 0);
  for (int eighths = 0; eighths <= 8; ++eighths) {
    const double alpha = eighths / 8.0;
    SCOPED_TRACE(alpha);
    const Training swapped = train(options(alpha), 20);
    expect_same_bits(swapped, kept);
    EXPECT_EQ(swapped.stats.host->live_bytes, 0);
    EXPECT_EQ(swapped.stats.layers[0].recomputed_bytes > 0, alpha < 1);
    EXPECT_GT(swapped.stats.layers[0].swapped_bytes, 0);
    EXPECT_EQ(swapped.stats.host->refusals, 0);
  }
}

TEST(Layers, ASinglePieceOfAFusedProjectionGivesTheSameBits) {
  const Training recomputed = train(options(0, 64));
  EXPECT_GT(recomputed.stats.layers[0].recomputed_bytes, 0);
  const Training swapped = train(options(1, 64));
  EXPECT_EQ(swapped.stats.layers[0].recomputed_bytes, 0);
  expect_same_bits(swapped, recomputed);
}

TEST(Layers, AChosenAlphaGivesTheSameBits) {
  const int steps = 40;  // more than any search takes, whatever it measures
  const auto train_alike = [](const Options& options) {
    Gpt model = make_gpt(3);
    Session session(at::kCPU, options);
    torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-2));
    Training training;
    for (int step = 0; step < steps; ++step) {
      optimizer.zero_grad();
      const auto loss = model->offloaded(session, some_tokens(1, 32));
      loss.backward();
      optimizer.step();
      training.losses.push_back(loss.item<double>());
    }
    training.gradients = gradients_of(*model);
    training.parameters = model->parameters();
    training.stats = session.stats();
    return training;
  };
  const Training given = train_alike(options(0));
  EXPECT_EQ(given.stats.alpha, 0);
  for (const AlphaRule rule : {AlphaRule::kMemo, AlphaRule::kAuto}) {
    Options chooses = options(0);
    chooses.alpha_rule = rule;
    const Training chosen = train_alike(chooses);
    expect_same_bits(chosen, given);
    EXPECT_GE(chosen.stats.alpha, 0);
    EXPECT_LE(chosen.stats.alpha, 1);
    EXPECT_EQ(chosen.stats.host->live_bytes, 0);
  }
}

TEST(Layers, AChosenAlphaFitsTheHost) {
  Options chooses = options(0);
  chooses.alpha_rule = AlphaRule::kMemo;
  chooses.host = 100 << 10;  // three layers' inputs and outputs at 64 tokens: 96 KiB, and statistics
  const Training chosen = train(chooses, 6);
  EXPECT_LT(chosen.stats.alpha, 0.25);
}

TEST(Layers, RecomputedAttentionGivesTheSameBitsAndSavesItsOutput) {
  const Training saved = train(options(0));
  for (const double alpha : {0.0, 0.5, 1.0}) {
    SCOPED_TRACE(alpha);
    Options again = options(alpha);
    again.recomputes_attention = true;
    const Training repeated = train(again);
    expect_same_bits(repeated, saved);
    EXPECT_EQ(repeated.stats.host->live_bytes, 0);
    EXPECT_EQ(repeated.stats.layers[0].attention_forwards, 6);
    if (alpha == 0) {
      EXPECT_LT(repeated.stats.layers[0].swapped_bytes,
                0.55 * static_cast<double>(saved.stats.layers[0].swapped_bytes));
    }
  }
}

TEST(Layers, BudgetsThatAProgramLeavesOpenAreReadFromTheEnvironment) {
  const auto budget = [](const char* text, Options options = {}) {
    ::setenv("EBBTIDE_HOST", text, 1);
    const auto unset = [](void*) { ::unsetenv("EBBTIDE_HOST"); };
    const std::unique_ptr<void, decltype(unset)> guard(&options, unset);
    return Session(at::kCPU, options).stats().host->budget_bytes;
  };
  EXPECT_EQ(budget("3MiB"), 3 * kMiB);
  EXPECT_EQ(budget(" 1.5 MB "), 1'500'000);
  EXPECT_EQ(budget("4096"), 4096);
  EXPECT_EQ(budget("3MiB", options(0)), 64 * kMiB);
  EXPECT_GT(budget(""), 0);
  EXPECT_THAT([&] { budget("much"); },
              ThrowsMessage<std::invalid_argument>(
                  "ebbtide offload: EBBTIDE_HOST=much: allowed is a size, such as 110GiB or a "
                  "number of bytes"));
  EXPECT_THAT([&] { budget("110"); },
              ThrowsMessage<std::invalid_argument>(
                  "ebbtide offload: EBBTIDE_HOST=110: allowed is a size with a unit, such as 110GiB"));
}

TEST(Layers, WhatFindsNoRoomOnTheHostStaysOrIsRecomputedWithTheSameBits) {
  const Training wide = train(options(1));
  Options narrow = options(1);
  narrow.host = 200 << 10;
  const Training tight = train(narrow);
  expect_same_bits(tight, wide);
  EXPECT_LE(tight.stats.host->peak_live_bytes, 200 << 10);
  EXPECT_GT(tight.stats.host->peak_live_bytes, 0);
  EXPECT_GT(tight.stats.layers[0].recomputed_bytes, 0);
}

TEST(Layers, LastLayersStayOnTheDevice) {
  Options two = options(0.5);
  two.keep_last = 2;
  const Stats kept_two = train(two).stats;
  EXPECT_GT(kept_two.layers[0].swapped_bytes, 0);
  EXPECT_EQ(kept_two.layers[1].swapped_bytes + kept_two.layers[2].swapped_bytes, 0);
  Options budget = options(0.5);
  budget.hbm = 1 << 30;
  const Stats kept_all = train(budget).stats;
  EXPECT_EQ(kept_all.host->swapped_out_bytes, 0);
  EXPECT_GT(kept_all.layers[0].kept_bytes, 0);
}

TEST(Layers, AgreeWithTheUnpiecedModelInDouble) {
  for (const std::int64_t length : {2, 63, 64, 65}) {
    for (const double alpha : {0.0, 0.5, 1.0}) {
      SCOPED_TRACE(length);
      const auto tokens = some_tokens(2, length);
      Gpt whole = make_gpt(2, at::kDouble), pieced = make_gpt(2, at::kDouble);
      const auto wanted = whole->plain(tokens);
      wanted.backward();
      Session session(at::kCPU, options(alpha));
      const auto found = pieced->offloaded(session, tokens);
      found.backward();
      EXPECT_LT(difference(found, wanted), 1e-10);
      EXPECT_LT(difference(gradients_of(*pieced), gradients_of(*whole)), 1e-10);
    }
  }
}

TEST(Layers, OfOneTokenAgree) {
  Block whole, pieced;
  whole->to(at::kDouble);
  pieced->to(at::kDouble);
  const auto pairs = pieced->parameters();
  for (std::size_t i = 0; i < pairs.size(); ++i)
    pairs[i].data().copy_(whole->parameters()[i].data());
  pieced->positions.copy_(whole->positions);
  auto x = at::randn({3, 1, kWidth}, at::kDouble).requires_grad_();
  auto same = x.detach().clone().requires_grad_();
  whole->forward(x).square().sum().backward();
  Session session(at::kCPU, options(1, 1));
  run_layer(session, pieced.ptr(), same).square().sum().backward();
  EXPECT_LT(difference(same.grad(), x.grad()), 1e-10);
  EXPECT_LT(difference(gradients_of(*pieced), gradients_of(*whole)), 1e-10);
}

TEST(Layers, GradientsInBfloat16AreSummedInFloat32) {
  const auto tokens = some_tokens(1, 250);
  const auto gradients = [&](at::ScalarType type, bool offloads) {
    Gpt model = make_gpt(2);
    model->to(at::kBFloat16);  // the same weights in both types
    model->to(type);
    Session session(at::kCPU, options(0.5, 8));
    (offloads ? model->offloaded(session, tokens) : model->plain(tokens)).backward();
    return gradients_of(*model);
  };
  const auto exact = gradients(at::kFloat, false);
  const auto error = [&](const Tensors& found) {
    double sum = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      sum += (found[i].to(at::kFloat) - exact[i]).square().sum().item<double>();
    }
    return std::sqrt(sum);
  };
  EXPECT_LE(error(gradients(at::kBFloat16, true)), 1.5 * error(gradients(at::kBFloat16, false)));
}

TEST(Layers, AttentionRunsOnceAStep) {
  for (const double alpha : {0.0, 0.5, 1.0}) {
    Gpt model = make_gpt(3);
    Session session(at::kCPU, options(alpha));
    for (int step = 0; step < 2; ++step) model->offloaded(session, some_tokens(2, 50)).backward();
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(model->block(i).attentions, 2);
      EXPECT_EQ(session.stats().layers[i].attention_forwards, 2);
      EXPECT_EQ(session.stats().layers[i].calls, 2);
    }
  }
}

TEST(Layers, HooksOfAParameterSeeOneGradient) {
  Gpt model = make_gpt(2);
  int calls = 0;
  for (const auto& parameter : model->parameters()) {
    parameter.register_hook([&](const at::Tensor&) { ++calls; });
  }
  Session session(at::kCPU, options(0.5));
  model->offloaded(session, some_tokens(2, 50)).backward();
  EXPECT_EQ(calls, static_cast<int>(model->parameters().size()));
}

TEST(Layers, GradientsAccumulateOverBackwards) {
  Gpt whole = make_gpt(2, at::kDouble), pieced = make_gpt(2, at::kDouble);
  Session session(at::kCPU, options(0.5));
  for (const std::int64_t length : {40, 23}) {
    (whole->plain(some_tokens(1, length)) * 3).backward();
    (pieced->offloaded(session, some_tokens(1, length)) * 3).backward();
  }
  EXPECT_LT(difference(gradients_of(*pieced), gradients_of(*whole)), 1e-10);
}

TEST(Layers, FrozenParametersGetNoGradient) {
  Gpt whole = make_gpt(2, at::kDouble), pieced = make_gpt(2, at::kDouble);
  for (Gpt model : {whole, pieced}) {
    model->block(0).up->weight.requires_grad_(false);
    model->head->weight.requires_grad_(false);
    model->words->weight.requires_grad_(false);
  }
  Session session(at::kCPU, options(0.5));
  whole->plain(some_tokens(1, 40)).backward();
  pieced->offloaded(session, some_tokens(1, 40)).backward();
  EXPECT_FALSE(pieced->block(0).up->weight.grad().defined());
  EXPECT_LT(difference(pieced->block(0).down->weight.grad(), whole->block(0).down->weight.grad()),
            1e-10);
  EXPECT_LT(difference(pieced->head->bias.grad(), whole->head->bias.grad()), 1e-10);
}

TEST(Layers, WithoutGradientsSaveNothing) {
  Gpt model = make_gpt(2);
  Session session(at::kCPU, options(1));
  const at::NoGradGuard no_grad;
  const auto tokens = some_tokens(2, 50);
  EXPECT_LT(difference(model->offloaded(session, tokens), model->plain(tokens)), 1e-5);
  EXPECT_EQ(session.stats().host->swapped_out_bytes, 0);
  EXPECT_EQ(session.stats().layers[0].calls, 0);
}

TEST(Layers, OneByOneAreTheSameAsTogether) {
  const auto run = [](bool together) {
    Gpt model = make_gpt(3);
    Session session(at::kCPU, options(0.5));
    auto x = model->words(some_tokens(2, 50));
    if (together) {
      x = run_layers<BlockImpl>(session, *model->blocks, x);
    } else {
      for (const auto& block : *model->blocks) {
        x = run_layer(session, std::dynamic_pointer_cast<BlockImpl>(block), x);
      }
    }
    x.square().sum().backward();
    Tensors gradients = gradients_of(*model);
    gradients.resize(gradients.size() - 2);  // the head's
    return gradients;
  };
  EXPECT_TRUE(same_bits(run(true), run(false)));
}

TEST(Layers, AbandonedGraphLeaksNothing) {
  Gpt model = make_gpt(3);
  Session session(at::kCPU, options(1));
  auto loss = model->offloaded(session, some_tokens(2, 50));
  EXPECT_GT(live_on_host(session), 0);
  loss.reset();
  EXPECT_EQ(live_on_host(session), 0);
}

TEST(Layers, GraphOutlivesItsSession) {
  Gpt model = make_gpt(2);
  at::Tensor loss;
  {
    Session session(at::kCPU, options(1));
    loss = model->offloaded(session, some_tokens(2, 50));
  }
  loss.backward();
  EXPECT_TRUE(model->block(0).up->weight.grad().defined());
}

TEST(Layers, ExceptionInBackwardLeaksNothing) {
  Gpt model = make_gpt(3), fresh = make_gpt(3);
  Session session(at::kCPU, options(0.5));
  const auto tokens = some_tokens(2, 50);
  auto loss = model->offloaded(session, tokens);
  model->block(1).at_after = [] { throw std::domain_error("the user's own"); };
  EXPECT_THAT([&] { loss.backward(); }, ThrowsMessage<std::domain_error>(HasSubstr("own")));
  loss.reset();
  EXPECT_EQ(live_on_host(session), 0);
  // The next step is as if nothing had been.
  model->block(1).at_after = [] {};
  model->zero_grad();
  model->offloaded(session, tokens).backward();
  Session other(at::kCPU, options(0.5));
  fresh->offloaded(other, tokens).backward();
  EXPECT_TRUE(same_bits(gradients_of(*model), gradients_of(*fresh)));
}

TEST(Layers, ExceptionInForwardLeaksNothing) {
  Gpt model = make_gpt(3);
  Session session(at::kCPU, options(1));
  int calls = 0;
  model->block(1).at_after = [&] {
    if (++calls == 2) throw std::domain_error("the user's own");
  };
  EXPECT_THROW(model->offloaded(session, some_tokens(2, 50)), std::domain_error);
  EXPECT_EQ(live_on_host(session), 0);
}

TEST(Layers, SecondBackwardAndSecondDerivativesAreRefused) {
  Gpt model = make_gpt(2);
  Session session(at::kCPU, options(0.5));
  const auto loss =
      run_layers<BlockImpl>(session, *model->blocks, model->words(some_tokens(1, 40))).sum();
  EXPECT_THAT([&] { loss.backward({}, false, /*create_graph=*/true); },
              ThrowsMessage<std::runtime_error>(HasSubstr("create_graph")));
  loss.backward({}, /*retain_graph=*/true);
  EXPECT_THAT([&] { loss.backward(); },
              ThrowsMessage<std::runtime_error>(HasSubstr("retain_graph")));
}

TEST(Layers, InPlaceChangesAfterTheSaveRaise) {
  Gpt model = make_gpt(2);
  Session session(at::kCPU, options(0.5));
  auto x = model->words(some_tokens(1, 40)) * 1;
  auto loss = run_layers<BlockImpl>(session, *model->blocks, x).sum();
  x.detach().mul_(2);
  EXPECT_THAT(
      [&] { loss.backward(); },
      ThrowsMessage<std::runtime_error>(HasSubstr("the input of a layer was changed in place")));
  loss = run_layers<BlockImpl>(session, *model->blocks, model->words(some_tokens(1, 40))).sum();
  model->block(1).up->weight.detach().mul_(2);
  EXPECT_THAT([&] { loss.backward(); },
              ThrowsMessage<std::runtime_error>(HasSubstr("a parameter was changed in place")));
}

TEST(Layers, CallersGradientIsNotWrittenTo) {
  Gpt model = make_gpt(1);
  Session session(at::kCPU, options(0.5));
  auto x = model->words(some_tokens(1, 40)).detach().requires_grad_();
  const auto y = run_layers<BlockImpl>(session, *model->blocks, x);
  const auto dy = at::randn_like(y), copy = dy.clone();
  y.backward(dy);
  EXPECT_TRUE(at::equal(dy, copy));
}

TEST(Layers, WrongOptionsAreOneClearLine) {
  const auto message = [](auto change) -> std::string {
    Options options;
    change(options);
    try {
      Session session(at::kCPU, options);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(
      message([](Options& o) { o.alpha = 1.5; }),
      "ebbtide offload: alpha=1.5: allowed is a number from 0 to 1, the share of tokens whose "
      "activations are swapped");
  EXPECT_THAT(message([](Options& o) { o.alpha = std::nan(""); }), HasSubstr("alpha=nan"));
  EXPECT_THAT(message([](Options& o) { o.alpha = 0.5, o.alpha_rule = AlphaRule::kAuto; }),
              HasSubstr("alpha=0.5: allowed is 0 where alpha_rule chooses it"));
  EXPECT_THAT(message([](Options& o) { o.mini_sequence = -3; }), HasSubstr("mini_sequence=-3"));
  EXPECT_THAT(message([](Options& o) { o.keep_last = -1; }), HasSubstr("keep_last=-1"));
  EXPECT_THAT(message([](Options& o) { o.hbm = -1; }), HasSubstr("hbm=-1"));
  EXPECT_THAT(message([](Options& o) { o.host = std::int64_t{1} << 60; }),
              HasSubstr("this machine's memory"));
  EXPECT_EQ(message([](Options&) {}), "");
}

TEST(Layers, WrongInputIsOneClearLine) {
  Gpt model = make_gpt(1);
  Session session(at::kCPU);
  EXPECT_THAT(
      [&] {
        run_layers<BlockImpl>(session, *model->blocks, at::zeros({1, 0, kWidth}));
      },
      ThrowsMessage<std::invalid_argument>(HasSubstr("batch x tokens")));
}

TEST(Layers, ChoosePiecesFromBytes) {
  Gpt whole = make_gpt(2, at::kDouble), pieced = make_gpt(2, at::kDouble);
  Options chosen;
  chosen.alpha = 0.5;
  Session session(at::kCPU, chosen);
  const auto tokens = some_tokens(1, 200);
  int runs = 0;
  pieced->block(0).at_after = [&] { ++runs; };
  pieced->offloaded(session, tokens).backward();
  whole->plain(tokens).backward();
  EXPECT_GT(runs, 2);
  EXPECT_LT(difference(gradients_of(*pieced), gradients_of(*whole)), 1e-10);
}

TEST(Layers, ReportNamesWhatWasKeptSwappedAndRecomputed) {
  Gpt model = make_gpt(3);
  Options last_kept = options(0.5);
  last_kept.keep_last = 1;
  Session session(at::kCPU, last_kept);
  model->offloaded(session, some_tokens(2, 64)).backward();
  const std::string report = session.report();
  EXPECT_THAT(report, HasSubstr("ebbtide offload (3 layers, alpha 0.5): head and loss in pieces"));
  EXPECT_THAT(report, HasSubstr("  layer 0 to 1: kept 0 B, swapped "));
  EXPECT_THAT(report, HasSubstr("  layer 2: kept "));
  EXPECT_THAT(report, HasSubstr("budget 64.00 MiB; "));
}

}  // namespace
}  // namespace ebbtide::offload
