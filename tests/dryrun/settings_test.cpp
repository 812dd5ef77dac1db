#include "dryrun/core/settings.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace ebbtide::dryrun {
namespace {

TEST(ParseSize, DecimalAndBinaryUnitsDiffer) {
  EXPECT_EQ(parse_size("141GB").value(), Bytes{141000000000});
  EXPECT_EQ(parse_size("80GiB").value(), Bytes{80 * kGiB.value});
  EXPECT_EQ(parse_size("1.5 GiB").value(), Bytes{1610612736});
  EXPECT_EQ(parse_size("512").value(), Bytes{512});
  EXPECT_EQ(parse_size("2M").value(), Bytes{2 << 20});
}

TEST(ParseSize, NonsenseIsRefusedWithAnExample) {
  for (const char* text : {"", "GiB", "-1GB", "0", "12x", "1GBs", "inf", "1e9", "99999999TB"}) {
    const auto parsed = parse_size(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.error().message.find("141GB"), std::string::npos);
  }
}

struct SettingsTest : testing::Test {
  SettingsTest() { setenv("EBBTIDE_DRYRUN_DEVICES", EBBTIDE_DEVICE_FOLDER, 1); }
};

TEST_F(SettingsTest, DefaultsAreOneH200WithItsOwnMemory) {
  unsetenv("EBBTIDE_DRYRUN_DEVICE");
  unsetenv("EBBTIDE_DRYRUN_CAPACITY");
  unsetenv("EBBTIDE_DRYRUN_COUNT");
  const auto settings = read_settings();
  ASSERT_TRUE(settings.ok());
  EXPECT_EQ(settings.value().model.name, "NVIDIA H200");
  EXPECT_EQ(settings.value().capacity, settings.value().model.memory);
  EXPECT_EQ(settings.value().device_count, 1);
}

TEST_F(SettingsTest, PinnedMemoryIsLimitedWhenAsked) {
  EXPECT_GT(read_settings().value().pinnable, kGiB);
  setenv("EBBTIDE_DRYRUN_PINNED", "1GiB", 1);
  const auto settings = read_settings();
  unsetenv("EBBTIDE_DRYRUN_PINNED");
  EXPECT_EQ(settings.value().pinnable, kGiB);
}

TEST_F(SettingsTest, AWrongValueNamesItsVariableAndWhatIsAllowed) {
  setenv("EBBTIDE_DRYRUN_DEVICE", "h300", 1);
  const auto device = read_settings();
  unsetenv("EBBTIDE_DRYRUN_DEVICE");
  ASSERT_FALSE(device.ok());
  EXPECT_EQ(
      device.error().message,
      "EBBTIDE_DRYRUN_DEVICE=h300: unknown device; allowed: a100-40g, a100-80g, a800-80g, h100-80g, "
      "h200, l40s, rtx4090, or the path of a device file (.json)");
  setenv("EBBTIDE_DRYRUN_COUNT", "0", 1);
  const auto count = read_settings();
  unsetenv("EBBTIDE_DRYRUN_COUNT");
  ASSERT_FALSE(count.ok());
  EXPECT_EQ(count.error().message, "EBBTIDE_DRYRUN_COUNT=0: allowed is 1 to 16");
}

TEST_F(SettingsTest, ANumberWithoutAUnitThatIsNoSizeThatAnybodyMeansIsTold) {
  const auto told = [](const char* name, const char* value) {
    setenv(name, value, 1);
    const auto settings = read_settings();
    unsetenv(name);
    return settings.ok() ? "" : settings.error().message;
  };
  EXPECT_EQ(told("EBBTIDE_DRYRUN_CAPACITY", "80"), "EBBTIDE_DRYRUN_CAPACITY=80: that is 80 bytes; did you mean 80GiB?");
  EXPECT_EQ(told("EBBTIDE_DRYRUN_PINNED", "512"), "EBBTIDE_DRYRUN_PINNED=512: that is 512 bytes; did you mean 512GiB?");
  EXPECT_EQ(told("EBBTIDE_DRYRUN_COMPUTE_LIMIT", "256"),
            "EBBTIDE_DRYRUN_COMPUTE_LIMIT=256: that is 256 bytes; did you mean 256MiB?");
  EXPECT_EQ(told("EBBTIDE_DRYRUN_CAPACITY", "10MiB"), "");
  EXPECT_EQ(told("EBBTIDE_DRYRUN_CAPACITY", "85899345920"), "");
}

}  // namespace
}  // namespace ebbtide::dryrun
