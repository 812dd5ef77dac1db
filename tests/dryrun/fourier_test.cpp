#include "dryrun/core/fourier.h"

#include <gtest/gtest.h>

namespace ebbtide::dryrun {
namespace {

TEST(Fourier, TakesFiveOperationsANumberAndStepOfTwo) {
  const Work work = work_of(Transform{.lengths = {1024}, .batch = 8});
  EXPECT_DOUBLE_EQ(work.flops, 5 * 8 * 1024 * 10);
  EXPECT_DOUBLE_EQ(work.bytes, 2 * 8 * 1024 * 8);
  EXPECT_EQ(work.launches, 1);
}

TEST(Fourier, OfRealNumbersIsHalfOfIt) {
  const Work whole = work_of(Transform{.lengths = {512, 512}});
  const Work half = work_of(Transform{.lengths = {512, 512}, .is_real = true});
  EXPECT_DOUBLE_EQ(half.flops, whole.flops / 2);
  EXPECT_DOUBLE_EQ(half.bytes, whole.bytes / 2);
}

TEST(Fourier, EachDimensionAndEachLongLengthGoesOverAllNumbersAgain) {
  EXPECT_EQ(work_of(Transform{.lengths = {64, 64, 64}}).launches, 3);
  EXPECT_EQ(work_of(Transform{.lengths = {1 << 20}}).launches, 2);
}

TEST(Fourier, WorksInACopyUnlessOneKernelDoesItAll) {
  EXPECT_EQ(work_area_bytes(Transform{.lengths = {4096}, .batch = 100}), 0);
  // 100 x 500 of complex64: 400000 bytes (arrayfire, issue 1443).
  EXPECT_EQ(work_area_bytes(Transform{.lengths = {100, 500}}), 400000);
  EXPECT_EQ(work_area_bytes(Transform{.lengths = {100, 500}, .complex_bytes = 16}), 800000);
}

TEST(Fourier, ALargePrimeFactorMakesItAConvolutionOfTwiceTheLength) {
  const Work prime = work_of(Transform{.lengths = {1009}});
  const Work padded = work_of(Transform{.lengths = {2048}});
  EXPECT_DOUBLE_EQ(prime.flops, 2 * padded.flops);
  EXPECT_EQ(work_area_bytes(Transform{.lengths = {1009}}), 2048 * 8);
  EXPECT_EQ(work_of(Transform{.lengths = {1008}}).launches, 1);
}

}  // namespace
}  // namespace ebbtide::dryrun
