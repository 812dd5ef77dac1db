#include "profiler/trace_summary.h"

#include <algorithm>
#include <limits>

namespace ebbtide {
namespace {

void add_saturating(Bytes& sum, Bytes more) {
  if (__builtin_add_overflow(sum.value, more.value, &sum.value)) {
    sum.value = std::numeric_limits<std::int64_t>::max();
  }
}

// Never below 0: after a saturated sum more may go than came.
void subtract(Bytes& sum, Bytes less) { sum = std::max(sum - less, Bytes{0}); }

// The count and the sum that belong to one placement; kUpstream has none of its own.
void add_served(TraceSummary& summary, Placement placement, Bytes bytes) {
  switch (placement) {
    case Placement::kUpstream:
      break;
    case Placement::kPlanned:
      ++summary.planned_allocations;
      add_saturating(summary.planned, bytes);
      break;
    case Placement::kGap:
      ++summary.gap_allocations;
      add_saturating(summary.gap, bytes);
      break;
    case Placement::kDiverged:
      ++summary.diverged_allocations;
      add_saturating(summary.diverged, bytes);
      break;
  }
}

}  // namespace

void TraceSummarizer::add(std::span<const EventRecord> events) {
  for (const EventRecord& event : events) {
    if (event.device == kNoDevice || !is_memory_event(event.action)) continue;
    Device& device = devices_[event.device];
    device.summary.device = event.device;
    add(device, event);
  }
}

void TraceSummarizer::add(Device& device, const EventRecord& event) {
  TraceSummary& summary = device.summary;
  ++summary.events;
  if (event.time_ns != 0) {
    device.first_ns =
        device.first_ns == 0 ? event.time_ns : std::min(device.first_ns, event.time_ns);
    device.last_ns = std::max(device.last_ns, event.time_ns);
  }
  switch (event.action) {
    case Action::kAllocate:
      allocate(device, event);
      break;
    case Action::kFree:
      free(device, event);
      break;
    case Action::kRound:
      ++summary.rounds;
      break;
    case Action::kPlan:
      ++summary.plans;
      summary.plan_height = std::max(Bytes{event.bytes}, Bytes{0});
      break;
    case Action::kReserved:
      device.has_reserved = true;
      [[fallthrough]];
    case Action::kArenaGrow:
      // The arena is part of what is reserved, so its extent alone is a lower bound of it.
      summary.peak_reserved = std::max(summary.peak_reserved, Bytes{event.bytes});
      break;
    case Action::kRecordStream:
    case Action::kMark:
    case Action::kArenaTrim:
    case Action::kUpstreamTrim:
    case Action::kSegmentTaken:
    case Action::kSegmentGivenBack:
    case Action::kUpstreamAllocate:
    case Action::kUpstreamFree:
    case Action::kDeviceUsed:
    case Action::kOutOfMemory:
    case Action::kName:
    case Action::kOwner:
    default:
      break;
  }
}

void TraceSummarizer::allocate(Device& device, const EventRecord& event) {
  TraceSummary& summary = device.summary;
  const Bytes bytes{std::max<std::int64_t>(event.bytes, 0)};
  ++summary.allocations;
  add_saturating(summary.allocated, bytes);
  add_served(summary, event.placement, bytes);
  const auto [entry, inserted] = device.live.try_emplace(event.address, bytes);
  if (!inserted) {
    ++summary.replaced;
    subtract(summary.live, entry->second);
    entry->second = bytes;
  }
  add_saturating(summary.live, bytes);
  summary.peak_live = std::max(summary.peak_live, summary.live);
}

void TraceSummarizer::free(Device& device, const EventRecord& event) {
  const auto entry = device.live.find(event.address);
  if (entry == device.live.end()) {
    ++device.summary.unknown_frees;
    return;
  }
  ++device.summary.frees;
  subtract(device.summary.live, entry->second);
  device.live.erase(entry);
}

TraceSummary TraceSummarizer::busiest() const {
  const Device* best = nullptr;
  for (const auto& [index, device] : devices_) {
    if (best == nullptr || device.summary.allocated > best->summary.allocated) best = &device;
  }
  if (best == nullptr) return {};
  TraceSummary summary = best->summary;
  // The arena alone would look like all that was held, and smaller than what lived.
  if (!best->has_reserved) summary.peak_reserved = {};
  summary.duration_ns = static_cast<std::int64_t>(std::min<std::uint64_t>(
      best->last_ns - best->first_ns, std::numeric_limits<std::int64_t>::max()));
  return summary;
}

Result<TraceSummary> summarize_trace(const std::string& path) {
  Result<TraceReader> opened = TraceReader::open(path);
  if (!opened) return opened.error();
  TraceReader& reader = opened.value();
  TraceSummarizer summarizer;
  for (auto block = reader.next(); !block.empty(); block = reader.next()) summarizer.add(block);
  TraceSummary summary = summarizer.busiest();
  summary.end = reader.end();
  summary.damage = reader.damage();
  summary.lost_events = static_cast<std::int64_t>(
      std::min<std::uint64_t>(reader.lost(), std::numeric_limits<std::int64_t>::max()));
  return summary;
}

}  // namespace ebbtide
