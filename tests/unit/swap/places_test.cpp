#include "swap/places.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace ebbtide {
namespace {

constexpr Bytes operator*(std::int64_t count, Bytes size) { return {count * size.value}; }
constexpr Bytes kUnit = Places::kAlignment;

TEST(Places, TakesTheLowestGapThatHoldsTheBytes) {
  Places places(10 * kUnit);
  for (std::int64_t at : {0, 3, 6}) places.take(Offset{at * kUnit.value}, kUnit);
  EXPECT_EQ(places.first_fit(kUnit), Offset{kUnit.value});
  EXPECT_EQ(places.first_fit(3 * kUnit), Offset{7 * kUnit.value});
  EXPECT_EQ(places.first_fit(4 * kUnit), std::nullopt);
}

TEST(Places, OddSizesOccupyWholeUnitsAndOddCapacityLosesItsRest) {
  Places places(2 * kUnit + Bytes{100});
  places.take(Offset{0}, Bytes{1});
  EXPECT_EQ(places.taken(), kUnit);
  EXPECT_FALSE(places.first_fit(kUnit + Bytes{1}).has_value());
  EXPECT_EQ(places.first_fit(kUnit), Offset{kUnit.value});
}

TEST(Places, NothingFitsIntoNothing) {
  const Places places(Bytes{0});
  EXPECT_FALSE(places.first_fit(Bytes{1}).has_value());
  EXPECT_EQ(places.room(kGiB, kGiB), Bytes{0});
  EXPECT_TRUE(places.is_valid());
}

TEST(Places, RoomIsTheLargestGapBelowTheLimit) {
  Places places(10 * kUnit);
  places.take(Offset{2 * kUnit.value}, kUnit);
  EXPECT_EQ(places.room(Bytes{700}, 10 * kUnit), Bytes{700});
  EXPECT_EQ(places.room(9 * kUnit, 10 * kUnit), 7 * kUnit);
  EXPECT_EQ(places.room(9 * kUnit, 6 * kUnit), 3 * kUnit);
  EXPECT_EQ(places.room(9 * kUnit, 4 * kUnit), 2 * kUnit);
}

TEST(Places, LastInFirstOutLeavesOneGap) {
  Places places(100 * kUnit);
  for (std::int64_t i = 0; i < 100; ++i) places.take(Offset{i * kUnit.value}, kUnit);
  for (std::int64_t i = 100; i-- > 0;) places.give_back(Offset{i * kUnit.value}, kUnit);
  EXPECT_EQ(places.room(100 * kUnit, 100 * kUnit), 100 * kUnit);
  EXPECT_EQ(places.peak_taken(), 100 * kUnit);
}

TEST(Places, AgreesWithANaiveModelOverRandomSequences) {
  std::minstd_rand chance(11);
  Places places(64 * kUnit);
  std::map<std::int64_t, std::int64_t> taken;  // unit -> units
  const auto is_free = [&](std::int64_t at, std::int64_t units) {
    for (const auto& [begin, size] : taken) {
      if (begin < at + units && at < begin + size) return false;
    }
    return at + units <= 64;
  };
  for (int i = 0; i < 5000; ++i) {
    const auto units = static_cast<std::int64_t>(chance() % 9 + 1);
    if (chance() % 2 == 0 && !taken.empty()) {
      const auto victim =
          std::next(taken.begin(), static_cast<std::ptrdiff_t>(chance() % taken.size()));
      places.give_back(Offset{victim->first * kUnit.value}, victim->second * kUnit);
      taken.erase(victim);
    } else {
      std::int64_t wanted = 0;
      while (wanted < 64 && !is_free(wanted, units)) ++wanted;
      const std::optional<Offset> found = places.first_fit(units * kUnit);
      ASSERT_EQ(found.has_value(), wanted < 64);
      if (!found) continue;
      ASSERT_EQ(found->value, wanted * kUnit.value);
      places.take(*found, units * kUnit);
      taken[wanted] = units;
    }
    ASSERT_TRUE(places.is_valid());
    const auto probe = static_cast<std::int64_t>(chance() % 64);
    ASSERT_EQ(places.is_free(Offset{probe * kUnit.value}, kUnit), is_free(probe, 1));
  }
}

TEST(PlacesDeathTest, TakingWhatIsTakenAborts) {
  Places places(4 * kUnit);
  places.take(Offset{0}, 2 * kUnit);
  EXPECT_DEATH(places.take(Offset{kUnit.value}, kUnit), "is_free");
}

TEST(PlacesDeathTest, GivingBackWhatIsFreeAborts) {
  Places places(4 * kUnit);
  places.take(Offset{0}, kUnit);
  EXPECT_DEATH(places.give_back(Offset{2 * kUnit.value}, kUnit), "");
}

}  // namespace
}  // namespace ebbtide
