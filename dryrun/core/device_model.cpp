#include "dryrun/core/device_model.h"

#include <array>
#include <cstring>

namespace ebbtide::dryrun {

namespace {

constexpr Bytes mib(std::int64_t count) { return {count << 20}; }

// Memory is what torch reports as total on these boards; driver versions differ by some 10 MiB.
constexpr std::array<DeviceModel, 4> kModels{{
    {"h200", "NVIDIA H200", 9, 0, 132, mib(143167), 60 << 20, 227 * 1024, 228 * 1024, 2048, 32,
     1980000, 3201000, 6144},
    {"h100-80g", "NVIDIA H100 80GB HBM3", 9, 0, 132, mib(81090), 50 << 20, 227 * 1024, 228 * 1024,
     2048, 32, 1980000, 2619000, 5120},
    {"a100-80g", "NVIDIA A100-SXM4-80GB", 8, 0, 108, mib(81153), 40 << 20, 163 * 1024, 164 * 1024,
     2048, 32, 1410000, 1593000, 5120},
    {"rtx4090", "NVIDIA GeForce RTX 4090", 8, 9, 128, mib(24209), 72 << 20, 99 * 1024, 100 * 1024,
     1536, 24, 2520000, 10501000, 384},
}};

}  // namespace

std::span<const DeviceModel> device_models() { return kModels; }

const DeviceModel* find_device_model(std::string_view option) {
  for (const DeviceModel& model : kModels) {
    if (option == model.option) return &model;
  }
  return nullptr;
}

void write_uuid(int device, char (&uuid)[16]) {
  constexpr char kText[] = "ebbtide-dryrun";
  std::memcpy(uuid, kText, sizeof kText);
  uuid[14] = static_cast<char>('0' + device / 10);
  uuid[15] = static_cast<char>('0' + device % 10);
}

std::string device_model_options() {
  std::string options;
  for (const DeviceModel& model : kModels) {
    if (!options.empty()) options += ", ";
    options += model.option;
  }
  return options;
}

}  // namespace ebbtide::dryrun
