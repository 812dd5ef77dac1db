// What one allocation and its free cost the training thread in the engine, by who serves them and by
// how many blocks are alive meanwhile, and how many bytes the engine keeps for them. Memory is fake: the figures are the
// engine's own.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "allocator/device/stream_fences.h"
#include "allocator/runtime/engine.h"
#include "tests/fakes/fake_range.h"

namespace ebbtide {
namespace {

constexpr int kPairs = 1024;  // a round
constexpr Bytes kSize{kMiB.value};

enum class Service : std::uint8_t { kPlanned, kOffPlan, kObserved };

// Adaptor of a device with as much memory as is asked for.
class Training {
 public:
  explicit Training(Service service)
      : engine_(options(service), std::make_unique<fakes::FakeRange>(), fences_) {}

  // A round of pairs, each freed `alive` requests after its birth.
  void round(std::int64_t alive, const std::function<Bytes()>& next_size, std::size_t pairs = std::size_t{kPairs}) {
    engine_.mark(MarkKind::kUser, 0);
    window_.assign(static_cast<std::size_t>(alive), nullptr);
    for (std::size_t i = 0; i < pairs; ++i) {
      void*& slot = window_[i % window_.size()];
      if (slot != nullptr) free(slot);
      slot = allocate(next_size());
    }
    for (void* address : window_) free(address);
  }

  void learn(std::int64_t alive) {
    for (int i = 0; i < 3; ++i) {
      round(alive, [] { return kSize; });
      engine_.settle();
    }
  }

  void settle() { engine_.settle(); }

  double planned_share() const {
    const Counters counters = engine_.snapshot().counters;
    return static_cast<double>(counters.planned.requests) / static_cast<double>(counters.all.requests);
  }

 private:
  static EngineOptions options(Service service) {
    EngineOptions options;
    options.observe_only = service == Service::kObserved;
    return options;
  }

  void* allocate(Bytes size) {
    const Engine::Grant grant = engine_.allocate(size, StreamId{});
    if (grant.address != nullptr) return grant.address;
    void* address = reinterpret_cast<void*>(next_upstream_ += static_cast<std::uintptr_t>(kGiB.value));
    engine_.note_upstream(address, size, grant);
    return address;
  }

  void free(void* address) {
    if (engine_.owns(address)) {
      engine_.deallocate(address);
    } else {
      engine_.forget_upstream(address);
    }
  }

  NoFences fences_;
  Engine engine_;
  std::vector<void*> window_;
  std::uintptr_t next_upstream_ = 0;
};

void run(benchmark::State& state, Service service) {
  Training training(service);
  const std::int64_t alive = state.range(0);
  training.learn(alive);
  const std::function<Bytes()> off_plan = [random = std::mt19937_64(1)]() mutable {
    return Bytes{static_cast<std::int64_t>(kSize.value + (random() % 65536) * 4096)};
  };
  const std::function<Bytes()> on_plan = [] { return kSize; };
  for (auto _ : state) training.round(alive, service == Service::kOffPlan ? off_plan : on_plan);
  state.SetItemsProcessed(kPairs * state.iterations());
  state.counters["pair"] = benchmark::Counter(static_cast<double>(kPairs * state.iterations()),
                                              benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["planned"] = training.planned_share();
}

void planned(benchmark::State& state) { run(state, Service::kPlanned); }
void off_plan(benchmark::State& state) { run(state, Service::kOffPlan); }
void observed(benchmark::State& state) { run(state, Service::kObserved); }

std::size_t heap_in_use() {
  const struct mallinfo2 now = ::mallinfo2();
  return now.uordblks + now.hblkhd;
}

// Rounds of so many pairs, of so many different sizes.
void bookkeeping(benchmark::State& state) {
  const auto pairs = static_cast<std::size_t>(state.range(0));
  const auto sizes = static_cast<std::uint64_t>(state.range(1));
  double bytes = 0;
  for (auto _ : state) {
    const std::size_t before = heap_in_use();
    Training training(Service::kPlanned);
    for (int i = 0; i < 6; ++i) {
      const std::function<Bytes()> repeating = [sizes, random = std::mt19937_64(1)]() mutable {
        return Bytes{kSize.value + static_cast<std::int64_t>(random() % sizes * 4096)};
      };
      training.round(40, repeating, pairs);
      training.settle();
    }
    bytes = static_cast<double>(heap_in_use() - before) / static_cast<double>(2 * pairs);
    state.counters["planned"] = training.planned_share();
  }
  state.counters["bytes_per_event"] = bytes;
}

BENCHMARK(bookkeeping)->Args({1024, 64})->Args({8192, 64})->Args({8192, 65536})->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(planned)->Arg(1)->Arg(40)->Unit(benchmark::kMicrosecond);
BENCHMARK(off_plan)->Arg(1)->Arg(40)->Arg(1000)->Unit(benchmark::kMicrosecond);
BENCHMARK(observed)->Arg(1)->Arg(40)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace ebbtide

BENCHMARK_MAIN();
