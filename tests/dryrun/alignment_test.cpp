// Products whose rows are not aligned to 16 bytes, beside what cuBLAS was measured to reach.
#include <gtest/gtest.h>

#include <string>

#include "dryrun/core/work.h"
#include "tests/dryrun/example_speed.h"

namespace ebbtide::dryrun {
namespace {

DeviceSpeed slow_speed() {
  DeviceSpeed speed = example_speed();  // 50 of 100 TFLOP/s where rows are aligned
  speed.matrix_rows_4 = 0.25;
  speed.matrix_rows_2 = 0.125;
  return speed;
}

Work product(NumberKind numbers, int row_alignment) {
  return {.activity = Activity::kMatrix,
          .flops = 1e12,
          .numbers = numbers,
          .row_alignment = row_alignment};
}

TEST(Alignment, EightBytesAreAsSlowAsFour) {
  for (const NumberKind numbers : {NumberKind::kBFloat16, NumberKind::kFloat16}) {
    EXPECT_DOUBLE_EQ(seconds_of(product(numbers, 16), slow_speed()), 0.02);
    EXPECT_DOUBLE_EQ(seconds_of(product(numbers, 8), slow_speed()), 0.04);
    EXPECT_DOUBLE_EQ(seconds_of(product(numbers, 4), slow_speed()), 0.04);
    EXPECT_DOUBLE_EQ(seconds_of(product(numbers, 2), slow_speed()), 0.08);
  }
  EXPECT_DOUBLE_EQ(seconds_of(product(NumberKind::kTensorFloat32, 4), slow_speed()), 0.04);
}

TEST(Alignment, IsNothingToProductsThatUseNoTensorCores) {
  EXPECT_DOUBLE_EQ(seconds_of(product(NumberKind::kFloat32, 4), slow_speed()), 0.02);
  EXPECT_DOUBLE_EQ(seconds_of(product(NumberKind::kFloat64, 8), slow_speed()), 0.02);
}

TEST(Alignment, IsNothingToWhatIsBoundByMemory) {
  Work work = product(NumberKind::kBFloat16, 2);
  work.bytes = 1e12;
  EXPECT_DOUBLE_EQ(seconds_of(work, slow_speed()), 2);
}

// Sizes, the alignment of their rows, and TFLOP/s of cuBLAS through torch. 512 x 4096 x about 4096:
// medians over a sweep (arXiv 2604.09595, read off its figure). The others: what the device files
// name. One share of a file has to give all shapes, and those of the H100 the H200's figures, too.
struct Measured {
  std::string device;
  double m, n, k;
  int row_alignment;
  double tflops;
};
class AlignmentMeasured : public testing::TestWithParam<Measured> {};

TEST_P(AlignmentMeasured, IsNearWhatCublasReaches) {
  const Measured& measured = GetParam();
  const auto model = load_device_model(measured.device, EBBTIDE_DEVICE_FOLDER);
  ASSERT_TRUE(model.ok());
  const double m = measured.m, n = measured.n, k = measured.k, flops = 2 * m * n * k;
  const Work work{.activity = Activity::kMatrix,
                  .flops = flops,
                  .bytes = 2 * (m * n + m * k + n * k),
                  .numbers = NumberKind::kBFloat16,
                  .product = {m, n, k, 1},
                  .row_alignment = measured.row_alignment};
  const double taken = flops / (measured.tflops * 1e12);
  EXPECT_NEAR(seconds_of(work, model.value().speed) / taken, 1, 0.15);
}

INSTANTIATE_TEST_SUITE_P(Cublas, AlignmentMeasured,
                         testing::Values(Measured{"a100-80g", 512, 4048, 4096, 16, 163},
                                         Measured{"a100-80g", 512, 4050, 4096, 4, 102},
                                         Measured{"a100-80g", 512, 4096, 4050, 4, 107},
                                         Measured{"a100-80g", 512, 4051, 4096, 2, 55},
                                         Measured{"a100-80g", 512, 4096, 4051, 2, 57},
                                         Measured{"h100-80g", 512, 4050, 4096, 4, 168},
                                         Measured{"h100-80g", 512, 4096, 4051, 2, 104},
                                         Measured{"h200", 72000, 3072, 3072, 16, 792},
                                         Measured{"h200", 72000, 14336, 3072, 16, 697},
                                         Measured{"h200", 72000, 3072, 3072, 2, 95.7},
                                         Measured{"h200", 72000, 14336, 3072, 2, 99.1}));

}  // namespace
}  // namespace ebbtide::dryrun
