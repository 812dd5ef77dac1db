// CUPTI's records as events of the trace.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "allocator/base/event.h"
#include "profiler/owner_names.h"

namespace ebbtide {

// Not thread-safe. Remembers a bounded number of names; a kernel beyond it has none.
class ActivityDecoder {
 public:
  static constexpr std::size_t kMostNames = std::size_t{1} << 14;

  // `clock_offset_ns` is what lies between the steady clock and the clock of the records; `has_sources`: memory records
  // end with the path of the library that asked.
  ActivityDecoder(EventSink& sink, OwnerNames& names, std::int64_t clock_offset_ns, bool has_sources)
      : sink_(sink), names_(names), clock_offset_ns_(clock_offset_ns), has_sources_(has_sources) {}

  // One record, as CUPTI hands it out. False if it has no times, or is of a kind that nobody asked for.
  bool add(const void* record);

 private:
  template <typename Activity>
  bool add_work(const Activity& activity, Action action);
  bool add_kernel(const void* record);
  bool add_memory(const void* record);
  std::uint32_t number_of(std::string_view text, std::string (*shown)(const std::string&));
  std::uint64_t steady(std::uint64_t time) const { return time + static_cast<std::uint64_t>(clock_offset_ns_); }

  EventSink& sink_;
  OwnerNames& names_;
  const std::int64_t clock_offset_ns_;
  const bool has_sources_;
  std::unordered_map<std::string, std::uint32_t> numbers_;  // by the text as CUPTI gives it
};

}  // namespace ebbtide
