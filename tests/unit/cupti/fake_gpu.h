// What a GPU did, told to the fake CUPTI.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "profiler/cupti/activity_layout.h"
#include "tests/fakes/fake_cupti.h"

namespace ebbtide::testing_support {

// Of the same library that the code under test loads, by path.
class FakeCupti {
 public:
  FakeCupti() : library_(::dlopen(FAKE_CUPTI, RTLD_NOW | RTLD_LOCAL)) {
    EXPECT_NE(library_, nullptr) << ::dlerror();
    find<decltype(fake_cupti_reset)>("fake_cupti_reset")();
  }
  static const char* path() { return FAKE_CUPTI; }

  void fail(const char* function, int result, std::uint32_t kind = 0) const {
    find<decltype(fake_cupti_fail)>("fake_cupti_fail")(function, kind, result);
  }
  void add(const std::vector<std::uint8_t>& record) const {
    find<decltype(fake_cupti_add)>("fake_cupti_add")(record.data(), record.size());
  }
  void deliver() const { find<decltype(fake_cupti_deliver)>("fake_cupti_deliver")(); }
  void limit_buffers(std::size_t bytes) const {
    find<decltype(fake_cupti_limit_buffers)>("fake_cupti_limit_buffers")(bytes);
  }
  void set_version(std::uint32_t version) const {
    find<decltype(fake_cupti_set_version)>("fake_cupti_set_version")(version);
  }
  bool is_subscribed() const { return find<decltype(fake_cupti_is_subscribed)>("fake_cupti_is_subscribed")() != 0; }
  bool is_enabled(ActivityKind kind) const {
    return find<decltype(fake_cupti_is_enabled)>("fake_cupti_is_enabled")(static_cast<std::uint32_t>(kind)) != 0;
  }
  std::uint64_t now() const { return find<decltype(fake_cupti_now)>("fake_cupti_now")(); }

 private:
  template <typename Function>
  Function* find(const char* name) const {
    return reinterpret_cast<Function*>(::dlsym(library_, name));
  }
  void* library_;
};

// The prefix that is read, and as many bytes more as the record of some version has.
template <typename Activity>
std::vector<std::uint8_t> record_of(const Activity& activity, std::size_t size) {
  std::vector<std::uint8_t> record(size);
  std::memcpy(record.data(), &activity, sizeof activity);
  return record;
}

inline std::vector<std::uint8_t> kernel(const char* name, std::uint64_t start, std::uint64_t end,
                                        std::uint32_t stream = 7, std::uint32_t device = 0) {
  KernelActivity activity{};
  activity.kind = ActivityKind::kKernel;
  activity.start = start;
  activity.end = end;
  activity.device = device;
  activity.stream = stream;
  activity.name = name;
  return record_of(activity, 216);
}

inline std::vector<std::uint8_t> copy(std::uint8_t copy_kind, std::uint64_t bytes, std::uint64_t start,
                                      std::uint64_t end, std::uint32_t stream = 13) {
  CopyActivity activity{};
  activity.kind = ActivityKind::kCopy;
  activity.copy_kind = copy_kind;
  activity.bytes = bytes;
  activity.start = start;
  activity.end = end;
  activity.stream = stream;
  return record_of(activity, 96);
}

inline std::vector<std::uint8_t> memory(MemoryOperation operation, std::uint64_t address, std::uint64_t bytes,
                                        std::uint64_t time, const char* source = nullptr) {
  MemoryActivity activity{};
  activity.kind = ActivityKind::kMemory;
  activity.operation = operation;
  activity.memory_kind = kDeviceMemory;
  activity.address = address;
  activity.bytes = bytes;
  activity.time = time;
  std::vector<std::uint8_t> record = record_of(activity, 128);
  std::memcpy(record.data() + kSourceOffset, &source, sizeof source);
  return record;
}

}  // namespace ebbtide::testing_support
