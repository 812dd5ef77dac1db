// What one observed event costs the training thread, and what the writer and the reader can carry.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "profiler/event_ring.h"
#include "profiler/trace_file.h"
#include "profiler/trace_format.h"
#include "profiler/trace_summary.h"

namespace ebbtide {
namespace {

constexpr std::size_t kBatch = 4096;

EventRecord sample_event() {
  EventRecord event;
  event.address = 0x7f0000000000;
  event.bytes = 1 << 20;
  return event;
}

// The ring is emptied outside the measured time.
void record(benchmark::State& state, EventRing::TimeStamp time_stamp) {
  EventRing ring(kBatch, time_stamp);
  std::vector<EventRecord> drained(kBatch);
  const EventRecord event = sample_event();
  for (auto _ : state) {
    for (std::size_t i = 0; i < kBatch; ++i) ring.record(event);
    state.PauseTiming();
    ring.drain(drained);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(kBatch) * state.iterations());
}
BENCHMARK_CAPTURE(record, with_time, EventRing::TimeStamp::kTaken);
BENCHMARK_CAPTURE(record, without_time, EventRing::TimeStamp::kOmitted);

void record_disabled(benchmark::State& state) {
  EventRing ring(kBatch);
  ring.set_enabled(false);
  const EventRecord event = sample_event();
  for (auto _ : state) {
    for (std::size_t i = 0; i < kBatch; ++i) ring.record(event);
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(kBatch) * state.iterations());
}
BENCHMARK(record_disabled);

void record_full(benchmark::State& state) {
  EventRing ring(2);
  const EventRecord event = sample_event();
  ring.record(event);
  ring.record(event);
  for (auto _ : state) ring.record(event);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(record_full);

// A trace of `events` allocations and frees over a working set of 4096 blocks.
void write_trace(const std::string& path, std::int64_t events) {
  Result<TraceFile> file = TraceFile::create(path);
  std::array<EventRecord, kMaxBlockRecords> block;
  for (std::int64_t done = 0; done < events; done += static_cast<std::int64_t>(block.size())) {
    for (std::size_t i = 0; i < block.size(); ++i) {
      block[i] = sample_event();
      block[i].address = i / 2 + (i % 2) * 2048;
      block[i].action = done / 4096 % 2 == 0 ? Action::kAllocate : Action::kFree;
    }
    static_cast<void>(file.value().append(block, 0));
  }
  static_cast<void>(file.value().finish(0));
}

void summarize(benchmark::State& state) {
  const std::string path = std::filesystem::temp_directory_path() /
                           ("ebbtide-bench-" + std::to_string(getpid()) + ".ebb");
  write_trace(path, state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(summarize_trace(path));
  state.SetItemsProcessed(state.range(0) * state.iterations());
  std::remove(path.c_str());
}
BENCHMARK(summarize)->Arg(1 << 20)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ebbtide
