#include "dryrun/core/work.h"

#include <gtest/gtest.h>

#include "tests/dryrun/example_speed.h"

namespace ebbtide::dryrun {
namespace {

TEST(Work, AMatrixProductTakesItsOperationsWhereTheyAreTheLonger) {
  // 4096 x 4096 x 4096: 2 * 4096^3 operations at 50 TFLOP/s
  const Work work{.activity = Activity::kMatrix, .flops = 2.0 * 4096 * 4096 * 4096, .bytes = 1e8};
  EXPECT_NEAR(seconds_of(work, example_speed()), 2.0 * 4096 * 4096 * 4096 / 50e12, 1e-12);
}

TEST(Work, AThinProductTakesItsBytes) {
  // 1 x 4096 by 4096 x 4096 in bfloat16: 33.6 MB at 500 GB/s, for 33.6 MFLOP
  const Work work{
      .activity = Activity::kMatrix, .flops = 2.0 * 4096 * 4096, .bytes = 2.0 * 4096 * 4096};
  EXPECT_NEAR(seconds_of(work, example_speed()), 2.0 * 4096 * 4096 / 500e9, 1e-12);
}

TEST(Work, AttentionsBackwardReachesItsOwnShareOfThePeak) {
  Work work{.activity = Activity::kAttention, .flops = 1e12};
  EXPECT_DOUBLE_EQ(seconds_of(work, example_speed()), 0.02);
  work.is_backward = true;
  EXPECT_DOUBLE_EQ(seconds_of(work, example_speed()), 0.04);
}

TEST(Work, CudnnsAttentionReachesSharesOfItsOwn) {
  DeviceSpeed speed = example_speed();
  speed.cudnn_attention_forward = 0.8;
  speed.cudnn_attention_backward = 0.4;
  Work work{.activity = Activity::kAttention, .flops = 1e12, .is_cudnn = true};
  EXPECT_DOUBLE_EQ(seconds_of(work, speed), 0.0125);
  work.is_backward = true;
  EXPECT_DOUBLE_EQ(seconds_of(work, speed), 0.025);
}

TEST(Work, NothingIsShorterThanTheShortestKernels) {
  DeviceSpeed speed = example_speed();
  speed.kernel_seconds = 2e-6;
  EXPECT_DOUBLE_EQ(seconds_of({.bytes = 1000, .launches = 3}, speed), 6e-6);
}

TEST(Work, StepsOfFewThreadsComeOnTopOfOperationsAtTheirShare) {
  DeviceSpeed speed = example_speed();
  speed.kernel_seconds = 2e-6;
  // 1e12 operations at a tenth of 100 TFLOP/s
  EXPECT_DOUBLE_EQ(seconds_of({.flops = 1e12, .share = 0.1, .steps = 1000}, speed), 0.102);
}

TEST(Work, SingleElementsTakeTheirTimeWhereTheirBytesTakeLess) {
  DeviceSpeed speed = example_speed();
  speed.element_seconds = 5e-12;
  EXPECT_DOUBLE_EQ(seconds_of({.bytes = 2e9, .single_elements = 1e9}, speed), 5e-3);
  EXPECT_DOUBLE_EQ(seconds_of({.bytes = 4e9, .single_elements = 1e9}, speed), 8e-3);
}

TEST(Work, OperationsOfNoUseTakeTime) {
  const Work work{.activity = Activity::kAttention, .flops = 1e12, .idle_flops = 5e11};
  EXPECT_DOUBLE_EQ(seconds_of(work, example_speed()), 0.03);
}

TEST(Work, LongRowsAreReadAgainFromDeviceMemory) {
  // 10 multiprocessors with two blocks each, a row of 1 MB in each: 20 MB at once
  DeviceSpeed speed = example_speed();
  speed.multiprocessors = 10;
  const Work work{.bytes = 1e9, .rows = {.bytes = 1e6, .reread = 5e8}};
  speed.l2_bytes = 21e6;
  EXPECT_DOUBLE_EQ(seconds_of(work, speed), 2e-3);
  speed.l2_bytes = 19e6;
  EXPECT_DOUBLE_EQ(seconds_of(work, speed), 3e-3);
}

TEST(Work, RowsTakeTheirBlocksOfThreadsWhereTheirBytesTakeLess) {
  // 10 multiprocessors with 16 blocks each, of 1.3 us and 2.4 ns a column
  DeviceSpeed speed = example_speed();
  speed.multiprocessors = 10;
  const double block = 1.3e-6 + 100 * 2.4e-9;
  EXPECT_NEAR(seconds_of({.rows = {.blocks = 320, .columns = 100}}, speed), 2 * block, 1e-12);
  EXPECT_NEAR(seconds_of({.rows = {.blocks = 1, .columns = 100}}, speed), block, 1e-12);
  EXPECT_NEAR(seconds_of({.rows = {.blocks = 1, .columns = 100, .serial = 1000}}, speed),
              block + 2.2e-6, 1e-12);
  EXPECT_DOUBLE_EQ(seconds_of({.bytes = 1e9, .rows = {.blocks = 320, .columns = 100}}, speed), 2e-3);
}

TEST(Work, CausalAttentionLooksAtTheTriangle) {
  EXPECT_DOUBLE_EQ(attention_pairs(4, 4, false), 16);
  EXPECT_DOUBLE_EQ(attention_pairs(4, 4, true), 10);  // 1 + 2 + 3 + 4
  EXPECT_DOUBLE_EQ(attention_pairs(2, 4, true), 7);   // the last two: 3 + 4
  EXPECT_DOUBLE_EQ(attention_pairs(4, 2, true), 3);   // the first two see nothing: 1 + 2
}

}  // namespace
}  // namespace ebbtide::dryrun
