#include "dryrun/core/factorisation.h"

#include <gtest/gtest.h>

#include "tests/dryrun/example_speed.h"

namespace ebbtide::dryrun {
namespace {

constexpr double kColumns = 1024, kCube = kColumns * kColumns * kColumns;
constexpr Matrices kSquare{kColumns, kColumns};

TEST(Factorisation, CountsOperationsAsLapackDoes) {
  EXPECT_DOUBLE_EQ(cholesky_work(kSquare).flops, kCube / 3);
  EXPECT_DOUBLE_EQ(lu_work(kSquare).flops, kCube * 2 / 3);
  EXPECT_DOUBLE_EQ(qr_work(kSquare).flops, kCube * 4 / 3);
  EXPECT_DOUBLE_EQ(qr_work({4 * kColumns, kColumns}).flops, 8 * kCube - kCube * 2 / 3);
  EXPECT_DOUBLE_EQ(reflector_work(kSquare, kColumns).flops, 2 * kCube);
  EXPECT_DOUBLE_EQ(solve_work(kSquare, 10, 2).flops, 20 * kColumns * kColumns);
  EXPECT_DOUBLE_EQ(symmetric_eigen_work(kSquare, Method::kReduction, true).flops, 9 * kCube);
  EXPECT_DOUBLE_EQ(symmetric_eigen_work(kSquare, Method::kReduction, false).flops, kCube * 4 / 3);
  EXPECT_DOUBLE_EQ(singular_work(kSquare, Method::kJacobi, true).flops, 22 * kCube);
  EXPECT_DOUBLE_EQ(singular_work(kSquare, Method::kJacobi, false).flops, kCube * 8 / 3);
}

TEST(Factorisation, AWideMatrixTakesWhatATallOneDoes) {
  EXPECT_DOUBLE_EQ(lu_work({100, 300}).flops, lu_work({300, 100}).flops);
  EXPECT_DOUBLE_EQ(singular_work({100, 300}, Method::kReduction, true).flops,
                   singular_work({300, 100}, Method::kReduction, true).flops);
}

TEST(Factorisation, ComplexNumbersTakeFourTimesTheOperationsAndTwiceTheBytes) {
  const Matrices complex{kColumns, kColumns, 1, NumberKind::kFloat32, true};
  EXPECT_DOUBLE_EQ(qr_work(complex).flops, 4 * qr_work(kSquare).flops);
  EXPECT_DOUBLE_EQ(qr_work(complex).bytes, 2 * qr_work(kSquare).bytes);
}

TEST(Factorisation, ColumnsWaitForEachOtherAndABatchWaitsOnce) {
  DeviceSpeed speed = example_speed();
  speed.kernel_seconds = 1e-6;
  const Matrices small{64, 64}, twice{128, 128}, many{64, 64, 100};
  const double one = seconds_of(qr_work(small), speed);
  EXPECT_GT(one, 64e-6);
  EXPECT_NEAR(seconds_of(qr_work(twice), speed) / one, 2, 0.05);
  EXPECT_LT(seconds_of(qr_work(many), speed), 2 * one);
}

TEST(Factorisation, ALargeOneReachesAShareOfThePeak) {
  const Matrices large{32768, 32768};
  const Work work = lu_work(large);
  EXPECT_NEAR(seconds_of(work, example_speed()), work.flops / (work.share * 100e12), 1e-9);
  EXPECT_LT(work.share, 0.5);
}

}  // namespace
}  // namespace ebbtide::dryrun
