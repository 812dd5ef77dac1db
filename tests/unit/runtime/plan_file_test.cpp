#include "allocator/runtime/plan_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>

#include "allocator/runtime/plan_maker.h"
#include "tests/unit/runtime/plan_damage.h"
#include "tests/unit/runtime/samples.h"

namespace ebbtide {
namespace {

using plan_damage::fix_sum;
using plan_damage::kBodyAt;
using plan_damage::nasty;
using samples::lasting;
using samples::mib;
using samples::request;
using samples::round_of;
using samples::survivor;

Round sample_round(std::uint32_t serial, double length) {
  Round round = round_of(serial, {request(mib(length), 2), request(mib(2 * length), 4), lasting(mib(3)),
                                  request(mib(0.5), 4), lasting(mib(2))});
  if (serial > 1) round.survivors = {survivor(serial - 1, 2, mib(3), Tick{1}), survivor(serial - 1, 4, mib(2), Tick{2})};
  return round;
}

PlanBooks sample_books() {
  PlanBooks books;
  ProgramBook& book = books[0];
  for (std::uint32_t serial = 1; serial <= 5; ++serial) book.learn(sample_round(serial, 1 + serial % 2));
  Round optimizer = round_of(6, {lasting(mib(5)), request(mib(4), 2)}, RoundKind::kOptimizer);
  optimizer.optimizer_end = Tick{2};
  book.learn(optimizer);
  samples::plan(book);
  books[-1].learn(round_of(1, {request(mib(1), 1)}));
  samples::plan(books[-1]);
  return books;
}

// What is decoded must not harm whoever uses it: it can be judged, chosen from, learnt with and planned.
void expect_harmless(PlanBooks books) {
  PlanOptions greedy;
  greedy.should_stop = [] { return true; };
  for (auto& [device, book] : books) {
    EXPECT_TRUE(validate_plans(book).ok());
    for (const Program& program : book.programs) {
      EXPECT_TRUE(program.is_valid());
      if (program.planned) {
        for (const Node& node : program.nodes) EXPECT_TRUE(node.unplanned || node.offset >= Offset{0});
      }
    }
    const ProgramBook::Resident resident{RootId{3}, mib(3)};
    static_cast<void>(book.choose(round_of(9, {}), {&resident, 1}));
    static_cast<void>(make_plans(book, greedy));
    Round round = sample_round(1, 2);
    round.serial = 7;
    book.learn(round);
    const bool made = make_plans(book, greedy).ok();
    EXPECT_TRUE(!made || validate_plans(book).ok());
  }
}

TEST(PlanFile, ComesBackAsItWas) {
  const PlanBooks books = sample_books();
  const std::string bytes = PlanFile::encode(books);
  const Result<PlanBooks> decoded = PlanFile::decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(PlanFile::encode(decoded.value()), bytes);
  ASSERT_EQ(decoded.value().size(), 2U);
  const ProgramBook& before = books.at(0);
  const ProgramBook& after = decoded.value().at(0);
  EXPECT_EQ(after.height, before.height);
  EXPECT_EQ(after.last_root, before.last_root);
  ASSERT_EQ(after.programs.size(), before.programs.size());
  for (std::size_t p = 0; p < after.programs.size(); ++p) {
    const Program& a = after.programs[p];
    const Program& b = before.programs[p];
    EXPECT_TRUE(a.is_valid());
    EXPECT_TRUE(a.planned);
    EXPECT_EQ(a.class_sizes, b.class_sizes);
    EXPECT_EQ(a.order, b.order);
    EXPECT_EQ(a.height, b.height);
    ASSERT_EQ(a.nodes.size(), b.nodes.size());
    for (std::size_t i = 0; i < a.nodes.size(); ++i) {
      EXPECT_EQ(a.nodes[i].root, b.nodes[i].root);
      EXPECT_EQ(a.nodes[i].offset, b.nodes[i].offset);
      EXPECT_EQ(a.nodes[i].slot, b.nodes[i].slot);
      EXPECT_EQ(a.nodes[i].death, b.nodes[i].death);
      EXPECT_EQ(a.nodes[i].unplanned, b.nodes[i].unplanned);
    }
  }
  EXPECT_EQ(after.homes.size(), before.homes.size());
  expect_harmless(decoded.value());
}

TEST(PlanFile, NoBooksAreAFileToo) {
  const Result<PlanBooks> decoded = PlanFile::decode(PlanFile::encode({}));
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded.value().empty());
}

TEST(PlanFile, CutOffAtAnyByteItIsRefusedWithAReason) {
  const std::string whole = PlanFile::encode(sample_books());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Result<PlanBooks> decoded = PlanFile::decode(whole.substr(0, size));
    ASSERT_FALSE(decoded.ok()) << size;
    EXPECT_EQ(decoded.error().code, ErrorCode::kBadPlan);
    EXPECT_FALSE(decoded.error().message.empty());
  }
}

TEST(PlanFile, CutOffWithAMatchingSumItIsStillRefused) {
  const std::string whole = PlanFile::encode(sample_books());
  for (std::size_t size = kBodyAt; size < whole.size(); ++size) {
    std::string part = whole.substr(0, size);
    fix_sum(part);
    ASSERT_FALSE(PlanFile::decode(part).ok()) << size;
  }
}

TEST(PlanFile, EveryFlippedBitIsNoticed) {
  std::string bytes = PlanFile::encode(sample_books());
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
    ASSERT_FALSE(PlanFile::decode(bytes).ok()) << at;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
  }
}

TEST(PlanFile, AnotherVersionIsRefusedByItsNumber) {
  std::string bytes = PlanFile::encode(sample_books());
  bytes[8] = 77;
  const Result<PlanBooks> decoded = PlanFile::decode(bytes);
  ASSERT_FALSE(decoded.ok());
  EXPECT_NE(decoded.error().message.find("77"), std::string::npos) << decoded.error().message;
}

TEST(PlanFile, DamageWithAMatchingSumIsRefusedOrHarmless) {
  const std::string whole = PlanFile::encode(sample_books());
  std::mt19937 random(5);
  int refused = 0;
  for (int trial = 0; trial < 20'000; ++trial) {
    std::string bytes = whole;
    for (std::size_t changes = 1 + random() % 3; changes > 0; --changes) {
      const std::size_t at = kBodyAt + 8 * (random() % ((bytes.size() - kBodyAt) / 8));
      std::int64_t number = 0;
      std::memcpy(&number, bytes.data() + at, sizeof(number));
      number = nasty(random, number);
      std::memcpy(bytes.data() + at, &number, sizeof(number));
    }
    fix_sum(bytes);
    const Result<PlanBooks> decoded = PlanFile::decode(bytes);
    if (!decoded.ok()) {
      ++refused;
      ASSERT_EQ(decoded.error().code, ErrorCode::kBadPlan);
      ASSERT_FALSE(decoded.error().message.empty());
      continue;
    }
    expect_harmless(decoded.value());
    ASSERT_FALSE(testing::Test::HasFailure()) << "trial " << trial;
  }
  EXPECT_GT(refused, 5'000);
}

TEST(PlanFile, CountsThatWouldOverflowAreRefused) {
  const auto decoded = [](auto&& change) {
    PlanBooks books = sample_books();
    change(books.at(0).programs.at(0));
    return PlanFile::decode(PlanFile::encode(books)).ok();
  };
  EXPECT_TRUE(decoded([](Program&) {}));
  EXPECT_FALSE(decoded([](Program& program) { program.nodes[0].missed = INT_MAX; }));
  EXPECT_FALSE(decoded([](Program& program) { program.nodes[0].missed = -1; }));
  const auto with_shapes = [](std::size_t shapes) {
    return [shapes](Program& program) {
      program.shapes = shapes;
      for (Node& node : program.nodes) node.sizes.resize(shapes);
    };
  };
  EXPECT_FALSE(decoded(with_shapes(0)));
  EXPECT_FALSE(decoded(with_shapes(kMaxShapes + 1)));
}

class PlanFileOnDisk : public testing::Test {
 protected:
  PlanFileOnDisk() : path_(testing::TempDir() + "ebbtide-" + std::to_string(::getpid()) + ".plan") {}
  ~PlanFileOnDisk() override { std::remove(path_.c_str()); }
  const std::string path_;
};

TEST_F(PlanFileOnDisk, IsWrittenWholeAndReadBack) {
  const PlanBooks books = sample_books();
  ASSERT_TRUE(PlanFile::save(path_, books).ok());
  const Result<PlanBooks> loaded = PlanFile::load(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(PlanFile::encode(loaded.value()), PlanFile::encode(books));
}

TEST_F(PlanFileOnDisk, ErrorsNameTheFile) {
  const Result<PlanBooks> missing = PlanFile::load(path_);
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find(path_), std::string::npos);
  std::ofstream(path_) << "no plan";
  const Result<PlanBooks> damaged = PlanFile::load(path_);
  ASSERT_FALSE(damaged.ok());
  EXPECT_NE(damaged.error().message.find(path_), std::string::npos);
  const Status unwritable = PlanFile::save(path_ + "/below", sample_books());
  ASSERT_FALSE(unwritable.ok());
  EXPECT_EQ(unwritable.error().code, ErrorCode::kSystem);
}

}  // namespace
}  // namespace ebbtide
