#include "dryrun/core/device_model.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace ebbtide::dryrun {
namespace {

// One for each process: tests run several at once.
std::filesystem::path scratch_file(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) / (name + "-" + std::to_string(::getpid()) + ".json");
}

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
  const auto path = scratch_file("changed");
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
  EXPECT_EQ(complaint_about("{\"value\": 0.728", "{\"value\": 72.8"),
            "efficiency.matrix.value must be a number from 1e-06 to 1");
  EXPECT_EQ(complaint_about("4.8e12", "\"fast\""),
            "memory_bandwidth must be a number from 1 to 1e+21");
  EXPECT_EQ(complaint_about("\"NVIDIA H200\"", "7"), "name must be a text");
  EXPECT_EQ(complaint_about("{", "["), "not a JSON object");
}

// A key that a file must have, as a JSON pointer, and a number beyond what it may be.
struct Key {
  std::string pointer;
  double too_much;
};

std::vector<Key> number_keys() {
  std::vector<Key> keys{{"/memory_bytes", 1e15}, {"/host_link/devices_per_link", 0},
                        {"/node/devices", 17},   {"/compute_capability/1", -1},
                        {"/node/channels/value", -1}, {"/peer_link/channels/value", 65}};
  for (const char* fact :
       {"compute_capability/0", "multiprocessors", "l2_bytes", "shared_bytes_per_block",
        "shared_bytes_per_multiprocessor", "threads_per_multiprocessor",
        "blocks_per_multiprocessor", "clock_khz", "memory_clock_khz", "memory_bus_bits"}) {
    keys.push_back({std::string("/").append(fact), 3e9});
  }
  for (const char* rate : {"peak_flops/float64", "peak_flops/float32", "peak_flops/tfloat32",
                           "peak_flops/float16", "peak_flops/bfloat16", "peak_flops/float8",
                           "memory_bandwidth", "host_link/to_host", "host_link/to_device",
                           "peer_link/bandwidth", "node/network"}) {
    keys.push_back({std::string("/").append(rate), 0});
  }
  for (const char* share :
       {"matrix", "attention_forward", "attention_backward", "memory", "host_link",
        "host_link_both", "host_link_pageable", "peer_link", "network"}) {
    keys.push_back({std::string("/efficiency/").append(share).append("/value"), 1.01});
  }
  for (const char* overhead :
       {"operator", "kernel", "element", "copy", "collective", "peer_hop", "network_hop"}) {
    keys.push_back({std::string("/overhead_seconds/").append(overhead).append("/value"), -1e-6});
  }
  return keys;
}

nlohmann::json h200_file() {
  std::ifstream source(std::string(kFolder) + "/h200.json");
  return nlohmann::json::parse(source);
}

std::string complaint_about(const nlohmann::json& root) {
  const auto path = scratch_file("edited");
  std::ofstream(path) << root;
  const auto model = load_device_model(path.string(), kFolder);
  std::filesystem::remove(path);
  return model.ok() ? "it loads" : model.error().message;
}

// "FILE: KEY <said>", in one line.
void expect_complaint(const nlohmann::json& root, std::string pointer, const std::string& said) {
  pointer.erase(0, 1);
  std::ranges::replace(pointer, '/', '.');
  const std::string complaint = complaint_about(root);
  const auto path = scratch_file("edited");
  EXPECT_EQ(complaint.find(path.string() + ": " + pointer + " " + said), 0U) << complaint;
  EXPECT_EQ(complaint.find('\n'), std::string::npos) << complaint;
}

TEST(DeviceModel, EachKeyThatIsMissingOfAWrongTypeOrOutOfRangeIsNamed) {
  const nlohmann::json whole = h200_file();
  ASSERT_NE(number_keys().size(), 0U);
  for (const Key& key : number_keys()) {
    const nlohmann::json::json_pointer where(key.pointer);
    nlohmann::json root = whole;
    root[where] = "fast";
    expect_complaint(root, key.pointer, "must be a number from ");
    root[where] = nullptr;
    expect_complaint(root, key.pointer, "must be a number from ");
    root[where] = key.too_much;
    expect_complaint(root, key.pointer, "must be a number from ");
    root = whole;
    if (root[where.parent_pointer()].is_array()) {
      root[where.parent_pointer()] = nlohmann::json::array();
      expect_complaint(root, "/compute_capability/0", "is missing: copy it from the file of ");
      continue;
    }
    root[where.parent_pointer()].erase(where.back());
    expect_complaint(root, key.pointer, "is missing: copy it from the file of a similar device");
    if (where.parent_pointer().empty()) continue;
    root[where.parent_pointer()] = 7;  // what should hold the key is no object
    if (where.parent_pointer().parent_pointer().empty()) {
      EXPECT_NE(complaint_about(root).find("is missing"), std::string::npos);
    } else {
      expect_complaint(root, key.pointer, "is missing: copy it from the file of a similar device");
    }
  }
}

TEST(DeviceModel, SharesOfCudnnsAttentionAreFlashAttentionsWhereTheyAreNotThere) {
  const DeviceSpeed with = load_device_model("h200", kFolder).value().speed;
  EXPECT_GT(with.cudnn_attention_forward, with.attention_forward);
  EXPECT_GT(with.cudnn_attention_backward, with.attention_backward);
  nlohmann::json root = h200_file();
  root["efficiency"].erase("cudnn_attention_forward");
  root["efficiency"].erase("cudnn_attention_backward");
  const auto path = scratch_file("older");
  std::ofstream(path) << root;
  const DeviceSpeed without = load_device_model(path.string(), kFolder).value().speed;
  EXPECT_DOUBLE_EQ(without.cudnn_attention_forward, with.attention_forward);
  EXPECT_DOUBLE_EQ(without.cudnn_attention_backward, with.attention_backward);
  root["efficiency"]["cudnn_attention_forward"] = {{"value", 1.01}};
  expect_complaint(root, "/efficiency/cudnn_attention_forward/value", "must be a number from ");
}

TEST(DeviceModel, ANameThatIsMissingEmptyOrNoTextIsNamed) {
  for (const nlohmann::json& name : {nlohmann::json(""), nlohmann::json(7), nlohmann::json()}) {
    nlohmann::json root = h200_file();
    root["name"] = name;
    expect_complaint(root, "/name", "must be a text");
  }
  nlohmann::json root = h200_file();
  root.erase("name");
  expect_complaint(root, "/name", "is missing: copy it from the file of a similar device");
}

TEST(DeviceModel, APathThatIsNotThereSaysSo) {
  const auto model = load_device_model("/nowhere/mine.json", kFolder);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().message, "/nowhere/mine.json: no such device file");
}

}  // namespace
}  // namespace ebbtide::dryrun
