// The C interface of what reports are made from: the events of a trace, and pickles judged.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "allocator/base/event.h"
#include "allocator/plan/pickle.h"
#include "hooks/c_status.h"
#include "hooks/ebbtide.h"
#include "hooks/registry.h"
#include "profiler/trace_reader.h"

struct ebbtide_trace {
  ebbtide::TraceReader reader;
};

namespace ebbtide {
namespace {

// ebbtide_event is EventRecord by another name: the blocks are handed out as they were read.
static_assert(sizeof(ebbtide_event) == sizeof(EventRecord));
static_assert(offsetof(ebbtide_event, time_ns) == offsetof(EventRecord, time_ns));
static_assert(offsetof(ebbtide_event, address) == offsetof(EventRecord, address));
static_assert(offsetof(ebbtide_event, bytes) == offsetof(EventRecord, bytes));
static_assert(offsetof(ebbtide_event, stream) == offsetof(EventRecord, stream));
static_assert(offsetof(ebbtide_event, thread) == offsetof(EventRecord, thread));
static_assert(offsetof(ebbtide_event, action) == offsetof(EventRecord, action));
static_assert(offsetof(ebbtide_event, placement) == offsetof(EventRecord, placement));
static_assert(offsetof(ebbtide_event, detail) == offsetof(EventRecord, detail));
static_assert(offsetof(ebbtide_event, device) == offsetof(EventRecord, device));

std::int64_t clamped(std::uint64_t count) {
  return static_cast<std::int64_t>(
      std::min<std::uint64_t>(count, std::numeric_limits<std::int64_t>::max()));
}

}  // namespace
}  // namespace ebbtide

using ebbtide::fail;
using ebbtide::guarded;

ebbtide_status ebbtide_name_owner(const char* text, uint32_t* name) {
  return guarded([&] {
    ebbtide::EventSink* sink = ebbtide::Registry::get().sink();
    *name = sink == nullptr ? 0 : ebbtide::Registry::get().owner_names().add(*sink, text);
    return EBBTIDE_OK;
  });
}

uint32_t ebbtide_set_owner(uint32_t name) {
  thread_local uint32_t current = 0;
  const uint32_t before = std::exchange(current, name);
  if (before == name) return before;
  if (ebbtide::EventSink* sink = ebbtide::Registry::get().sink(); sink != nullptr) {
    ebbtide::EventRecord event;
    event.action = ebbtide::Action::kOwner;
    event.bytes = name;
    event.device = ebbtide::kNoDevice;
    sink->record(event);
  }
  return before;
}

void ebbtide_trace_layer(int device, uint32_t name, int64_t kept, int64_t swapped, int64_t recomputed) {
  ebbtide::EventSink* sink = ebbtide::Registry::get().sink();
  if (sink == nullptr) return;
  using ebbtide::Decision;
  for (const auto& [decision, bytes] : {std::pair{Decision::kKept, kept}, std::pair{Decision::kSwapped, swapped},
                                        std::pair{Decision::kRecomputed, recomputed}}) {
    if (bytes <= 0) continue;
    ebbtide::EventRecord event;
    event.action = ebbtide::Action::kDecision;
    event.device = static_cast<std::int8_t>(device);
    event.address = name;
    event.bytes = bytes;
    event.detail = static_cast<std::uint8_t>(decision);
    sink->record(event);
  }
}

ebbtide_status ebbtide_trace_open(const char* path, ebbtide_trace** trace) {
  return guarded([&] {
    auto opened = ebbtide::TraceReader::open(path);
    if (!opened.ok()) return fail(opened.error());
    *trace = new ebbtide_trace{std::move(opened).value()};
    return EBBTIDE_OK;
  });
}

size_t ebbtide_trace_next(ebbtide_trace* trace, const ebbtide_event** events) {
  size_t count = 0;
  guarded([&] {
    const auto block = trace->reader.next();
    *events = reinterpret_cast<const ebbtide_event*>(block.data());
    count = block.size();
    return EBBTIDE_OK;
  });
  return count;
}

ebbtide_status ebbtide_trace_get_info(const ebbtide_trace* trace, ebbtide_trace_info* info) {
  return guarded([&] {
    const ebbtide::TraceReader& reader = trace->reader;
    ebbtide_trace_info filled{};
    filled.is_complete = reader.end() == ebbtide::TraceEnd::kComplete;
    filled.records = ebbtide::clamped(reader.records());
    filled.lost_events = ebbtide::clamped(reader.lost());
    ebbtide::copy_text(reader.damage(), filled.damage, sizeof filled.damage);
    ebbtide::copy_known(filled, info);
    return EBBTIDE_OK;
  });
}

void ebbtide_trace_close(ebbtide_trace* trace) { delete trace; }

ebbtide_status ebbtide_check_pickle(const char* bytes, size_t size, const char* source) {
  return guarded([&] {
    const auto read = ebbtide::Pickle::read(std::string_view(bytes, size), source);
    return read.ok() ? EBBTIDE_OK : fail(read.error());
  });
}
