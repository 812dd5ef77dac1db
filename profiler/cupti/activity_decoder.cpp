#include "profiler/cupti/activity_decoder.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "profiler/cupti/activity_layout.h"

namespace ebbtide {
namespace {

// Records may lie at any multiple of 8 and be shorter than a newer version's: what is read is copied out.
template <typename Activity>
Activity read(const void* record) {
  Activity activity;
  std::memcpy(&activity, record, sizeof activity);
  return activity;
}

std::int64_t clamped(std::uint64_t value) {
  return static_cast<std::int64_t>(std::min<std::uint64_t>(value, std::numeric_limits<std::int64_t>::max()));
}

EventRecord event_of(Action action, std::uint32_t device) {
  EventRecord event;
  event.action = action;
  event.device = static_cast<std::int8_t>(std::min<std::uint32_t>(device, std::numeric_limits<std::int8_t>::max()));
  return event;
}

std::string demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 && text != nullptr ? std::string(text.get()) : name;
}

std::string file_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

bool ActivityDecoder::add(const void* record) {
  switch (read<ActivityKind>(record)) {
    case ActivityKind::kKernel:
      return add_kernel(record);
    case ActivityKind::kCopy:
    case ActivityKind::kCopyBetweenDevices:
      return add_work(read<CopyActivity>(record), Action::kCopy);
    case ActivityKind::kMemset:
      return add_work(read<MemsetActivity>(record), Action::kMemset);
    case ActivityKind::kMemory:
      return add_memory(record);
  }
  return false;
}

template <typename Activity>
bool ActivityDecoder::add_work(const Activity& activity, Action action) {
  if (activity.start == 0 || activity.end < activity.start) return false;
  EventRecord event = event_of(action, activity.device);
  event.time_ns = steady(activity.start);
  event.bytes = clamped(activity.bytes);
  event.address = activity.end - activity.start;
  event.stream = activity.stream;
  if constexpr (requires { activity.copy_kind; }) event.detail = activity.copy_kind;
  sink_.record(event);
  return true;
}

bool ActivityDecoder::add_kernel(const void* record) {
  const auto kernel = read<KernelActivity>(record);
  if (kernel.start == 0 || kernel.end < kernel.start) return false;
  EventRecord event = event_of(Action::kKernel, kernel.device);
  event.time_ns = steady(kernel.start);
  event.bytes = clamped(kernel.end - kernel.start);
  event.address = kernel.name == nullptr ? 0 : number_of(kernel.name, &demangled);
  event.stream = kernel.stream;
  sink_.record(event);
  return true;
}

bool ActivityDecoder::add_memory(const void* record) {
  const auto memory = read<MemoryActivity>(record);
  const bool is_release = memory.operation == MemoryOperation::kRelease;
  if (memory.time == 0 || (!is_release && memory.operation != MemoryOperation::kAllocation)) return false;
  EventRecord event = event_of(is_release ? Action::kCudaFree : Action::kCudaAllocate, memory.device);
  event.time_ns = steady(memory.time);
  event.address = memory.address;
  event.bytes = clamped(memory.bytes);
  event.detail = static_cast<std::uint8_t>(memory.memory_kind);
  if (has_sources_ && !is_release) {
    const char* source = nullptr;
    std::memcpy(&source, static_cast<const char*>(record) + kSourceOffset, sizeof source);
    if (source != nullptr && *source != '\0') event.stream = number_of(source, &file_of);
  }
  sink_.record(event);
  return true;
}

std::uint32_t ActivityDecoder::number_of(std::string_view text, std::string (*shown)(const std::string&)) {
  std::string key(text);
  if (const auto found = numbers_.find(key); found != numbers_.end()) return found->second;
  if (numbers_.size() == kMostNames) return 0;
  const std::uint32_t number = names_.add(sink_, shown(key));
  numbers_.emplace(std::move(key), number);
  return number;
}

}  // namespace ebbtide
