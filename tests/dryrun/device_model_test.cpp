#include "dryrun/core/device_model.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace ebbtide::dryrun {
namespace {

constexpr char kFolder[] = EBBTIDE_DEVICE_FOLDER;

// A copy of the H200's file with one text replaced by another.
std::string changed_file(const std::string& from, const std::string& to) {
  std::ifstream source(std::string(kFolder) + "/h200.json");
  std::stringstream text;
  text << source.rdbuf();
  std::string content = text.str();
  const auto at = content.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  content.replace(at, from.size(), to);
  const auto path = std::filesystem::path(testing::TempDir()) / "changed.json";
  std::ofstream(path) << content;
  return path;
}

std::string complaint_about(const std::string& from, const std::string& to) {
  const std::string path = changed_file(from, to);
  const auto model = load_device_model(path, kFolder);
  EXPECT_FALSE(model.ok());
  const std::string message = model.ok() ? "" : model.error().message;
  EXPECT_EQ(message.find(path + ": "), 0U) << message;
  return message.substr(std::min(message.size(), path.size() + 2));
}

TEST(DeviceModel, EveryFileOfTheFolderLoads) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() != ".json") continue;
    const auto model = load_device_model(entry.path().stem().string(), kFolder);
    ASSERT_TRUE(model.ok()) << model.error().message;
    EXPECT_EQ(model.value().option, entry.path().stem().string());
    ++count;
  }
  EXPECT_GE(count, 7);
}

TEST(DeviceModel, TheNumbersAreTheFiles) {
  const DeviceModel a800 = load_device_model("a800-80g", kFolder).value();
  EXPECT_EQ(a800.name, "NVIDIA A800-SXM4-80GB");
  EXPECT_EQ(a800.memory, Bytes{std::int64_t{81153} << 20});
  EXPECT_EQ(a800.speed.devices_per_link, 2);
  EXPECT_DOUBLE_EQ(a800.speed.peer_bandwidth, 200e9);
  EXPECT_DOUBLE_EQ(a800.speed.peak_flops[static_cast<std::size_t>(NumberKind::kBFloat16)], 312e12);
}

TEST(DeviceModel, AnUnknownNameListsTheKnownOnes) {
  const auto model = load_device_model("h300", kFolder);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().message,
            "unknown device; allowed: a100-40g, a100-80g, a800-80g, h100-80g, h200, l40s, rtx4090, "
            "or the path of a device file (.json)");
}

TEST(DeviceModel, AMalformedFileIsOneLineThatNamesFileAndKey) {
  EXPECT_EQ(
      complaint_about("\"memory_bytes\"", "\"memory\""),
      "memory_bytes is missing: copy it from the file of a similar device in " + device_folder());
  EXPECT_EQ(complaint_about("\"multiprocessors\": 132", "\"multiprocessors\": 1.5"),
            "multiprocessors must be a whole number");
  EXPECT_EQ(complaint_about("{\"value\": 0.803", "{\"value\": 80.3"),
            "efficiency.matrix.value must be a number from 1e-06 to 1");
  EXPECT_EQ(complaint_about("4.8e12", "\"fast\""),
            "memory_bandwidth must be a number from 1 to 1e+21");
  EXPECT_EQ(complaint_about("\"NVIDIA H200\"", "7"), "name must be a text");
  EXPECT_EQ(complaint_about("{", "["), "not a JSON object");
}

TEST(DeviceModel, APathThatIsNotThereSaysSo) {
  const auto model = load_device_model("/nowhere/mine.json", kFolder);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().message, "/nowhere/mine.json: no such device file");
}

}  // namespace
}  // namespace ebbtide::dryrun
