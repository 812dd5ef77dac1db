#include "allocator/runtime/program_book.h"
#include "allocator/runtime/plan_maker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>

#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using samples::lasting;
using samples::mib;
using samples::request;
using samples::round_of;
using samples::survivor;

// A forward and backward that scales with `length`.
std::vector<Request> micro_batch(double length) {
  return {request(mib(4 * length), 5), request(mib(2 * length), 3), request(mib(8 * length), 4),
          request(mib(length), 6),     request(mib(3 * length), 6), request(mib(16), 6)};
}

TEST(ProgramBook, AnEmptyRoundTeachesNothing) {
  ProgramBook book;
  EXPECT_EQ(book.learn(round_of(1, {})), std::nullopt);
  EXPECT_TRUE(book.programs.empty());
}

TEST(ProgramBook, TheSameRoundTwiceIsOneProgram) {
  ProgramBook book;
  EXPECT_EQ(book.learn(round_of(1, micro_batch(1))), 0U);
  EXPECT_EQ(book.learn(round_of(2, micro_batch(1))), 0U);
  ASSERT_EQ(book.programs.size(), 1U);
  const Program& program = book.programs[0];
  EXPECT_EQ(program.nodes.size(), 6U);
  EXPECT_EQ(program.shapes, 1U);
  EXPECT_EQ(program.learnt, 2U);
  EXPECT_EQ(program.last_round, 2U);
  EXPECT_TRUE(program.is_valid());
  EXPECT_EQ(program.nodes[1].death, Tick{3});
  EXPECT_EQ(program.nodes[2].slot, mib(8));
}

TEST(ProgramBook, AnotherLengthIsASecondShapeOfTheSameProgram) {
  ProgramBook book;
  book.learn(round_of(1, micro_batch(1)));
  book.learn(round_of(2, micro_batch(2)));
  ASSERT_EQ(book.programs.size(), 1U);
  const Program& program = book.programs[0];
  EXPECT_EQ(program.nodes.size(), 6U);
  EXPECT_EQ(program.shapes, 2U);
  EXPECT_EQ(program.nodes[2].slot, mib(16));
  EXPECT_EQ(program.nodes[2].sizes, (std::vector<Bytes>{mib(8), mib(16)}));
  EXPECT_TRUE(program.is_constant(program.nodes[5].size_class));
}

TEST(ProgramBook, TheLatestDeathSeenCounts) {
  ProgramBook book;
  std::vector<Request> late = micro_batch(1);
  late[1].death = Tick{5};
  book.learn(round_of(1, micro_batch(1)));
  book.learn(round_of(2, late));
  book.learn(round_of(3, micro_batch(1)));
  EXPECT_EQ(book.programs[0].nodes[1].death, Tick{5});
}

TEST(ProgramBook, RoundsOfOtherKindsAndSourcesAreOtherPrograms) {
  ProgramBook book;
  book.learn(round_of(1, micro_batch(1), RoundKind::kForward));
  book.learn(round_of(2, micro_batch(1), RoundKind::kInference));
  Round other = round_of(3, micro_batch(1), RoundKind::kForward);
  other.source = 2;
  book.learn(other);
  EXPECT_EQ(book.programs.size(), 3U);
}

TEST(ProgramBook, AnOptionalRequestBecomesANodeThatMayBeMissed) {
  ProgramBook book;
  std::vector<Request> with_extra = micro_batch(1);
  for (Request& r : with_extra) r.death.value += r.death.value > 3 ? 1 : 0;
  with_extra.insert(with_extra.begin() + 3, request(mib(5), 4));
  // Two lengths: only then is it known what the other sizes must be.
  book.learn(round_of(1, micro_batch(1)));
  book.learn(round_of(2, micro_batch(2)));
  book.learn(round_of(3, with_extra));
  ASSERT_EQ(book.programs.size(), 1U);
  ASSERT_EQ(book.programs[0].nodes.size(), 7U);
  EXPECT_EQ(book.programs[0].nodes[3].slot, mib(5));
  book.learn(round_of(4, micro_batch(1)));
  ASSERT_EQ(book.programs.size(), 1U);
  EXPECT_EQ(book.programs[0].nodes.size(), 7U);
  EXPECT_EQ(book.programs[0].nodes[3].missed, 1);
  EXPECT_EQ(book.programs[0].nodes[2].missed, 0);
  EXPECT_TRUE(book.programs[0].is_valid());
}

// A large tensor, and in some rounds a copy of it that lives on in its stead.
std::vector<Request> with_mask(bool is_padded) {
  if (is_padded)
    return {request(mib(4), 5), request(mib(40), 3), request(mib(41), 5), request(mib(8), 4),
            request(mib(3), 5)};
  return {request(mib(4), 4), request(mib(40), 4), request(mib(8), 3), request(mib(3), 4)};
}

TEST(ProgramBook, ALargeTensorThatTakesAnothersPlaceMakesAProgramOfItsOwn) {
  for (const bool is_first_padded : {true, false}) {
    ProgramBook book;
    for (std::uint32_t serial = 1; serial <= 8; ++serial) {
      book.learn(round_of(serial, with_mask((serial % 2 == 1) == is_first_padded)));
      ASSERT_TRUE(make_plans(book, {}).ok());
    }
    ASSERT_EQ(book.programs.size(), 2U);
    EXPECT_EQ(book.programs[0].nodes.size() + book.programs[1].nodes.size(), 9U);
    EXPECT_LE(book.height, mib(86));  // both masks at once only while the one is copied
  }
}

TEST(ProgramBook, ASmallTensorMoreOrLessIsTheSameProgram) {
  ProgramBook book;
  for (std::uint32_t serial = 1; serial <= 8; ++serial) {
    std::vector<Request> requests = with_mask(true);
    if (serial % 2 == 0) requests.push_back(request(Bytes{40960}, 6));
    book.learn(round_of(serial, requests));
    ASSERT_TRUE(make_plans(book, {}).ok());
  }
  EXPECT_EQ(book.programs.size(), 1U);
}

TEST(ProgramBook, PlansGoRoundAWorkspaceInTheArenaAsSoonAsItIsFoundToStay) {
  ProgramBook book;
  std::vector<Request> first = micro_batch(1);
  first.push_back(lasting(mib(8)));
  book.learn(round_of(1, first));
  Round round = round_of(2, micro_batch(1));
  round.survivors = {survivor(1, 6, mib(8))};
  round.survivors[0].in_arena = true;
  book.learn(round);
  ASSERT_TRUE(book.is_permanent(book.root_of({1, 6})));
  EXPECT_EQ(book.squatters.size(), 1U);
}

TEST(ProgramBook, AWorkspaceMadeOnceIsNoReasonForAVariant) {
  ProgramBook book;
  std::vector<Request> first = micro_batch(1);
  first.push_back(lasting(mib(8)));
  book.learn(round_of(1, first));
  for (std::uint32_t serial = 2; serial < 5; ++serial) {
    Round round = round_of(serial, micro_batch(1));
    round.survivors = {survivor(1, 6, mib(8))};
    book.learn(round);
  }
  EXPECT_EQ(book.programs.size(), 1U);
}

TEST(ProgramBook, ANodeThatNeverComesAgainIsForgotten) {
  ProgramBook book;
  std::vector<Request> with_extra = micro_batch(1);
  with_extra.push_back(request(mib(1.5), 7));
  book.learn(round_of(1, with_extra));
  for (std::uint32_t serial = 2; serial < 40; ++serial)
    book.learn(round_of(serial, micro_batch(1)));
  EXPECT_EQ(book.programs[0].nodes.size(), 6U);
  EXPECT_TRUE(book.programs[0].is_valid());
}

// Gradients outlive the first micro-batch; the others find them and free what they add.
std::vector<Request> with_gradients(bool is_first) {
  return {request(mib(8), 3), request(mib(4), 2), is_first ? lasting(mib(64)) : request(mib(64), 3),
          is_first ? lasting(mib(32)) : request(mib(32), 4)};
}

TEST(ProgramBook, TheFirstMicroBatchAndTheOthersAreVariants) {
  ProgramBook book;
  std::uint32_t serial = 0;
  for (int step = 0; step < 3; ++step) {
    std::vector<Survivor> gradients;
    for (int k = 0; k < 3; ++k) {
      Round round = round_of(++serial, with_gradients(k == 0));
      round.previous = k == 0 ? RoundKind::kOptimizer : RoundKind::kForward;
      round.survivors = gradients;
      book.learn(round);
      if (k == 0) gradients = {survivor(serial, 2, mib(64)), survivor(serial, 3, mib(32))};
    }
    Round optimizer = round_of(++serial, {request(mib(20), 1)}, RoundKind::kOptimizer);
    optimizer.previous = RoundKind::kForward;
    optimizer.survivors = gradients;
    for (Survivor& gradient : optimizer.survivors) gradient.end = Tick{1};
    book.learn(optimizer);
  }
  ASSERT_EQ(book.programs.size(), 3U);
  const Program& first = book.programs[0];
  const Program& other = book.programs[1];
  EXPECT_EQ(first.incoming.size(), 0U);
  EXPECT_TRUE(first.nodes[2].survives());
  EXPECT_EQ(other.incoming.size(), 2U);
  EXPECT_FALSE(other.nodes[2].survives());
  EXPECT_EQ(other.incoming[0].end, kAlive);
  // One tensor, one root, in every program that it is alive in.
  EXPECT_EQ(first.nodes[2].root, other.incoming[0].root);
  EXPECT_EQ(book.programs[2].incoming.size(), 2U);
  EXPECT_EQ(book.programs[2].incoming[0].root, first.nodes[2].root);
  EXPECT_EQ(book.programs[2].incoming[0].end, Tick{1});
  samples::plan(book);
}

// `out = model(x)`: the old output goes after the new one has come.
TEST(ProgramBook, ATensorThatIsReplacedWhileItLivesTakesTurnsBetweenTwoRoots) {
  ProgramBook book;
  for (std::uint32_t serial = 1; serial <= 8; ++serial) {
    Round round = round_of(
        serial, {request(mib(8), 2), request(mib(4), 2), lasting(mib(64)), request(mib(2), 4)});
    if (serial > 1) round.survivors = {survivor(serial - 1, 2, mib(64), Tick{3})};
    book.learn(round);
  }
  std::set<RootId> roots;
  for (std::uint32_t serial = 5; serial <= 8; ++serial) {
    const RootId root = book.root_of({serial, 2});
    EXPECT_NE(root, RootId{});
    EXPECT_NE(root, book.root_of({serial - 1, 2})) << "two tensors that live together share a root";
    roots.insert(root);
  }
  EXPECT_EQ(roots.size(), 2U);
  EXPECT_FALSE(book.is_permanent(*roots.begin()));
  samples::plan(book);
}

// A loop over micro-batches frees its batch, then loads the next, if there is one: the batch that
// is born is the resident that the next round finds, although the last round of a step has none.
TEST(ProgramBook, ATensorThatReplacesADeadOneKeepsItsRootWhereItIsOptional) {
  ProgramBook book;
  std::optional<Survivor> batch;
  for (std::uint32_t serial = 1; serial <= 12; ++serial) {
    std::vector<Request> requests{request(mib(8), 2), request(mib(4), 3), request(mib(16), 3)};
    const bool is_last = serial % 4 == 0;
    if (!is_last) requests.push_back(lasting(mib(1)));
    Round round = round_of(serial, requests);
    if (batch) round.survivors = {*batch};
    batch.reset();
    if (!is_last) batch = survivor(serial, 3, mib(1), Tick{3});
    book.learn(round);
  }
  samples::plan(book);
  for (const Program& program : book.programs) {
    if (program.nodes.size() < 4 || program.nodes[3].unplanned) continue;
    ASSERT_TRUE(book.homes.contains(program.nodes[3].root));
    EXPECT_EQ(program.nodes[3].offset, book.homes.at(program.nodes[3].root).offset);
  }
}

TEST(ProgramBook, TensorsThatAreHoardedBecomePermanent) {
  ProgramBook book;
  std::vector<Survivor> hoard;
  for (std::uint32_t serial = 1; serial <= 12; ++serial) {
    Round round = round_of(serial, {request(mib(8), 2), lasting(mib(1)), request(mib(4), 3)});
    round.survivors = hoard;
    book.learn(round);
    hoard.push_back(survivor(serial, 1, mib(1)));
  }
  ASSERT_FALSE(book.programs.empty());
  EXPECT_TRUE(book.is_permanent(book.root_of({12, 1})));
  const Program& last = book.programs.back();
  const bool has_unplanned = std::any_of(last.nodes.begin(), last.nodes.end(),
                                         [](const Node& node) { return node.unplanned; });
  EXPECT_TRUE(has_unplanned);
  samples::plan(book);
  EXPECT_LE(book.height, mib(13));
}

TEST(ProgramBook, OptimizerStateIsNeverPlanned) {
  ProgramBook book;
  Round first =
      round_of(2, {lasting(mib(64)), lasting(mib(64)), request(mib(10), 3), lasting(mib(1))},
               RoundKind::kOptimizer);
  first.optimizer_end = Tick{3};
  book.learn(first);
  ASSERT_EQ(book.programs.size(), 1U);
  EXPECT_EQ(book.programs[0].nodes.size(), 2U);
  EXPECT_TRUE(book.is_permanent(book.root_of({2, 0})));
  EXPECT_TRUE(book.is_permanent(book.root_of({2, 1})));
  // What comes after the step, the next batch, is no state.
  EXPECT_FALSE(book.is_permanent(book.root_of({2, 3})));
  samples::plan(book);
  EXPECT_LE(book.height, mib(11));
}

// Where the arena could not be given back the state lies in it.
TEST(ProgramBook, PlansGoRoundOptimizerStateInTheArenaAtOnce) {
  ProgramBook book;
  book.learn(round_of(1, micro_batch(1)));
  samples::plan(book);
  Round step = round_of(2, {lasting(mib(64)), request(mib(10), 2), lasting(mib(1))}, RoundKind::kOptimizer);
  step.optimizer_end = Tick{2};
  for (const std::uint32_t kept : {0U, 2U}) {
    step.left.push_back(survivor(2, kept, step.requests[kept].size));
    step.left.back().in_arena = true;
    step.left.back().offset = Offset{mib(64 * kept).value};
  }
  book.learn(step);
  ASSERT_EQ(book.squatters.size(), 1U) << "the next batch is expected";
  EXPECT_EQ(book.squatters[0].size, mib(64));
  EXPECT_FALSE(book.programs[0].planned);
}

// In the order in which they are found they differ from round to round.
TEST(ProgramBook, SquattersThatAreTheSameChangeNoPlan) {
  ProgramBook book;
  book.learn(round_of(1, micro_batch(1)));
  Round step = round_of(2, {lasting(mib(64)), request(mib(10), 2)}, RoundKind::kOptimizer);
  step.optimizer_end = Tick{2};
  const auto in_arena = [](Survivor kept, Offset offset) {
    kept.in_arena = true;
    kept.offset = offset;
    return kept;
  };
  const Survivor high = in_arena(survivor(1, 99, mib(8)), Offset{mib(512).value});
  const Survivor low = in_arena(survivor(2, 0, mib(64)), Offset{0});
  step.survivors = {high};
  step.left = {low};
  book.learn(step);
  samples::plan(book);
  ASSERT_EQ(book.squatters.size(), 2U);
  Round again = round_of(3, micro_batch(1));
  again.survivors = {low, high};
  book.learn(again);
  EXPECT_TRUE(book.programs[1].planned);
}

// Programs 1 and 2 of one kind and source, the first one learnt last.
ProgramBook two_planned() {
  ProgramBook book;
  for (std::uint32_t k = 0; k < 2; ++k) {
    Program program = samples::program_of({{mib(1)}, {mib(2)}});
    program.id = k + 1;
    program.kind = RoundKind::kForward;
    program.planned = true;
    program.last_round = 10 - k;
    book.programs.push_back(program);
  }
  return book;
}

// What the step before left, a loss and an output, is another tensor for each task.
TEST(ProgramBook, ResidentsThatAreLittleBesideTheProgramMakeNoVariant) {
  const auto programs_with = [](Bytes resident) {
    ProgramBook book;
    book.learn(round_of(1, micro_batch(64)));
    samples::plan(book);
    for (std::uint32_t serial = 2; serial < 6; ++serial) {
      std::vector<Request> requests = micro_batch(64);
      requests.push_back(lasting(resident));
      Round round = round_of(serial, requests);
      if (serial > 2) round.survivors = {survivor(serial - 1, 6, resident, Tick{1})};
      book.learn(round);
      samples::plan(book);
    }
    return book.programs.size();
  };
  EXPECT_EQ(programs_with(mib(8)), 1U);
  EXPECT_GT(programs_with(mib(512)), 1U);
}

TEST(ProgramBook, ChoosesTheProgramThatHasLearntFromThisVeryInput) {
  ProgramBook book = two_planned();
  for (Program& program : book.programs) program.inputs = {{16, 512}};
  book.programs[0].note_learnt({24, 384});
  book.programs[1].note_learnt({16, 512});
  Round round = round_of(20, {});
  round.extents = {16, 512};
  EXPECT_EQ(book.choose(round, {}, {})->id, 2U) << "the other one, learnt last, has a copy of its sizes";
  round.extents = {24, 384};
  EXPECT_EQ(book.choose(round, {}, {})->id, 1U);
}

TEST(ProgramBook, AProgramThatAsksForMoreThanAnyOfItsRoundsNeededIsAFiction) {
  ProgramBook book;
  const std::size_t found = *book.learn(round_of(1, micro_batch(1)));
  EXPECT_FALSE(book.programs[found].is_fiction());
  EXPECT_EQ(book.programs[found].asked, book.programs[found].needed);
  Program merged = book.programs[found];
  merged.asked = Bytes{merged.needed.value * 9 / 8};
  EXPECT_FALSE(merged.is_fiction());
  merged.asked += mib(1);
  EXPECT_TRUE(merged.is_fiction());
}

// Its plan has room for a long input; what needed it is not written in files.
TEST(ProgramBook, AShortRoundMakesNoFictionOfALoadedProgram) {
  ProgramBook book;
  book.learn(round_of(1, micro_batch(4)));
  Program& loaded = book.programs[0];
  loaded.asked = loaded.needed = Bytes{};
  EXPECT_FALSE(loaded.is_fiction());
  book.learn(round_of(2, micro_batch(1)));
  ASSERT_EQ(book.programs.size(), 1U);
  EXPECT_FALSE(book.programs[0].is_fiction());
}

TEST(ProgramBook, ChoosesTheProgramWhoseResidentsAreAlive) {
  ProgramBook book = two_planned();
  for (Program& program : book.programs) program.incoming = {{RootId{99 + program.id}, mib(64), kAlive}};
  Round round = round_of(20, {});
  const std::vector<ProgramBook::Resident> first{{RootId{100}, mib(64)}};
  const std::vector<ProgramBook::Resident> second{{RootId{101}, mib(64)}};
  ASSERT_NE(book.choose(round, first), nullptr);
  EXPECT_EQ(book.choose(round, first)->id, 1U);
  EXPECT_EQ(book.choose(round, second)->id, 2U);
  EXPECT_EQ(book.choose(round, {})->id, 1U);  // among equals the one learnt last
  EXPECT_TRUE(ProgramBook::fits(book.programs[0], first));
  EXPECT_FALSE(ProgramBook::fits(book.programs[0], second));
  round.kind = RoundKind::kInference;
  EXPECT_EQ(book.choose(round, first), nullptr);
  book.programs[0].planned = book.programs[1].planned = false;
  round.kind = RoundKind::kForward;
  EXPECT_EQ(book.choose(round, first), nullptr);
}

// Generation between two steps of training: hundreds of rounds, each of its own.
TEST(ProgramBook, ProgramsOfOneSourceDoNotDisplaceThoseOfAnother) {
  ProgramBook book;
  const auto add = [&](std::uint32_t id, RoundKind kind, std::uint32_t source) {
    Program program;
    program.id = 1000 + id;
    program.kind = kind;
    program.source = source;
    program.learnt = 2;
    program.last_round = id;
    book.programs.push_back(program);
  };
  add(1, RoundKind::kForward, 1);
  for (std::uint32_t id = 2; id < 25; ++id) add(id, RoundKind::kInference, 2);
  Round round = round_of(30, {request(mib(8), 1)}, RoundKind::kInference);
  round.source = 2;
  book.learn(round);
  EXPECT_EQ(book.programs.size(), 24U);
  EXPECT_EQ(book.count_of(RoundKind::kForward, 1), 1U) << "the oldest, but the only one";
}

// Tokens are generated between one prompt and the next, and another model reads what was generated.
TEST(ProgramBook, WhatComesOnceBetweenManyTokensIsKnownTheNextTime) {
  ProgramBook book;
  std::uint32_t serial = 1;
  const auto round_with = [&](std::uint32_t source, const Extents& extents, const std::vector<Request>& requests) {
    Round round = round_of(serial++, requests, RoundKind::kInference);
    round.source = source;
    round.extents = extents;
    return round;
  };
  const Round prompt = round_with(1, {16, 300}, {request(mib(30), 2), request(mib(60), 2)});
  const Round read = round_with(2, {16, 350}, {request(mib(70), 2), request(mib(90), 2)});
  book.learn(prompt);
  for (std::uint32_t token = 0; token < 60; ++token) book.learn(round_with(1, {16, 1}, {request(mib(2.0 + token), 1)}));
  book.learn(read);
  for (std::uint32_t token = 0; token < 60; ++token) book.learn(round_with(1, {16, 1}, {request(mib(100.0 + token), 1)}));
  samples::plan(book);
  const Program* of_prompt = book.choose(round_with(1, {16, 280}, {}), {});
  ASSERT_NE(of_prompt, nullptr);
  EXPECT_EQ(of_prompt->nodes.size(), 2U) << "not the newest, a token's";
  EXPECT_NE(book.choose(round_with(2, {16, 300}, {}), {}), nullptr);
  EXPECT_EQ(book.choose(round_with(1, {16, 1}, {}), {})->nodes.size(), 1U);
}

TEST(ProgramBook, ManyDifferentRoundsDoNotMakeItGrowForEver) {
  ProgramBook book;
  for (std::uint32_t serial = 1; serial <= 200; ++serial) {
    Round round = round_of(serial, {request(mib(serial % 7 + 1), 1), request(mib(1), 2)});
    round.source = serial;
    book.learn(round);
  }
  EXPECT_LE(book.programs.size(), 25U);
  EXPECT_EQ(book.programs.back().last_round, 200U);
}

}  // namespace
}  // namespace ebbtide
