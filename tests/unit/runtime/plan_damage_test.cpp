#include "tests/unit/runtime/plan_damage.h"

#include <gtest/gtest.h>

#include "allocator/runtime/plan_file.h"
#include "allocator/runtime/plan_maker.h"
#include "tests/unit/runtime/training_program.h"

namespace ebbtide::simulation {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr int kMutations = 5'000;  // one thread: nothing for the thread sanitizer to find, and slow under it
#else
constexpr int kMutations = 100'000;
#endif
constexpr int kServed = 150;  // one of so many accepted plans serves: its rounds are planned anew, 15 ms each
constexpr ModelShape kModel{.layers = 1, .hidden = 128, .ffn = 256, .heads = 0, .vocabulary = 512};

void train(SimulatedAdaptor& adaptor, int iterations) {
  TrainingProgram program(adaptor, kModel);
  for (int i = 0; i < iterations; ++i) program.iterate(i % 2 == 0 ? 256 : 384, ZeroGrad::kAfterStep);
}

std::string saved_plan() {
  SimulatedAdaptor adaptor;
  train(adaptor, 8);
  adaptor.engine().settle();
  PlanBooks books;
  books[0] = *adaptor.engine().finish();
  return PlanFile::encode(books);
}

// One to three fields or bytes are something else.
std::string damaged(std::string bytes, std::mt19937& random) {
  const bool whole_fields = random() % 2 == 0;
  for (std::size_t changes = 1 + random() % 3; changes > 0; --changes) {
    if (!whole_fields) {
      bytes[plan_damage::kBodyAt + random() % (bytes.size() - plan_damage::kBodyAt)] = static_cast<char>(random());
      continue;
    }
    char* field = &bytes[plan_damage::kBodyAt + 8 * (random() % ((bytes.size() - plan_damage::kBodyAt) / 8))];
    std::int64_t number = 0;
    std::memcpy(&number, field, sizeof(number));
    number = plan_damage::nasty(random, number);
    std::memcpy(field, &number, sizeof(number));
  }
  plan_damage::fix_sum(bytes);
  return bytes;
}

TEST(PlanDamage, AWrongPlanIsRefusedOrServesWithoutAnOverlap) {
  const std::string whole = saved_plan();
  std::mt19937 random(11);
  int refused = 0;
  int accepted = 0;
  std::int64_t planned = 0;
  for (int trial = 0; trial < kMutations; ++trial) {
    Result<PlanBooks> books = PlanFile::decode(damaged(whole, random));
    if (!books.ok()) {
      ++refused;
      ASSERT_EQ(books.error().code, ErrorCode::kBadPlan);
      ASSERT_FALSE(books.error().message.empty());
      continue;
    }
    for (const auto& [device, book] : books.value()) ASSERT_TRUE(validate_plans(book).ok()) << "trial " << trial;
    if (++accepted % kServed != 0) continue;
    SimulatedAdaptor adaptor(SimulatedAdaptor::defaults(), books.value()[0]);
    train(adaptor, 2);
    adaptor.check_books();
    ASSERT_FALSE(adaptor.first_fault()) << "trial " << trial << ": " << *adaptor.first_fault();
    planned += adaptor.engine().snapshot().counters.planned.requests;
  }
  EXPECT_GT(refused, kMutations / 20);
  EXPECT_GT(accepted, kMutations / 20);
  EXPECT_GT(planned, 0);  // the plans that passed did serve
}

}  // namespace
}  // namespace ebbtide::simulation
