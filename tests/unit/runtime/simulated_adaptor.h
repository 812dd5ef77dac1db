// Plays the adaptor in front of an engine, and checks every answer against a naive model.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "allocator/runtime/engine.h"
#include "tests/fakes/fake_fences.h"
#include "tests/fakes/fake_range.h"

namespace ebbtide::simulation {

// What the engine is asked for: is the thread inside autograd's backward?
inline thread_local bool in_backward = false;

using TensorId = std::uint64_t;

// Owns an engine over a fake range, and the upstream allocator beside it, which never runs out.
//
// Thread-safe. first_fault() is the first thing that was wrong, in words:
//   1. a live block shares a byte with another one, or an arena block is not inside the range or in a hole of it;
//   2. a free is not accepted, or a block's size or owner is not what was granted;
//   3. counters or live bytes do not add up (check_books).
class SimulatedAdaptor {
 public:
  struct Options {
    EngineOptions engine;
    fakes::FakeRange::Options range;
  };

  static Options defaults() {
    Options options;
    options.engine.is_in_backward = [] { return in_backward; };
    return options;
  }

  explicit SimulatedAdaptor(Options options = defaults(), ProgramBook book = {}) {
    auto range = std::make_unique<fakes::FakeRange>(options.range);
    range_ = range.get();
    engine_ = std::make_unique<Engine>(options.engine, std::move(range), fences_, std::move(book));
  }

  TensorId allocate(Bytes size, StreamId stream = {}) {
    Tensor tensor{0, size, Owner::kSmall};
    if (!engine_->wants(size)) {
      engine_->note_small(size);
      const std::lock_guard lock(lock_);
      return add(tensor);
    }
    const Engine::Grant grant = engine_->allocate(size, stream);
    if (grant.address != nullptr) {
      tensor.owner = Owner::kArena;
      tensor.address = reinterpret_cast<std::uintptr_t>(grant.address);
      const std::lock_guard lock(lock_);
      return add(tensor);
    }
    {
      const std::lock_guard lock(lock_);
      tensor.owner = Owner::kUpstream;
      tensor.address = next_upstream_;
      next_upstream_ += static_cast<std::uintptr_t>(align_up(size, kMiB).value);
    }
    engine_->note_upstream(reinterpret_cast<void*>(tensor.address), size, grant);
    const std::lock_guard lock(lock_);
    return add(tensor);
  }

  // Neither the arena nor upstream can serve it: the program sees an exception.
  void fail_to_allocate(Bytes size, StreamId stream = {}) {
    const Engine::Grant grant = engine_->allocate(size, stream);
    if (grant.address != nullptr) return note_fault("the arena served what it was not to serve");
    engine_->note_refused(size, grant);
  }

  void free(TensorId id) {
    const Tensor tensor = take(id);
    void* address = reinterpret_cast<void*>(tensor.address);
    if (tensor.owner == Owner::kSmall) return;
    const bool owned = engine_->owns(address);
    if (owned != (tensor.owner == Owner::kArena)) fault("owns() is wrong for tensor", id);
    if (tensor.owner == Owner::kUpstream) {
      engine_->forget_upstream(address);
      return;
    }
    const Engine::Extent extent = engine_->block_at(address);
    if (extent.begin != address || extent.size != tensor.size) fault("block_at() is wrong for tensor", id);
    if (!engine_->deallocate(address)) fault("a free was refused: tensor", id);
  }

  void use_on(TensorId id, StreamId stream) {
    Tensor tensor;
    {
      const std::lock_guard lock(lock_);
      tensor = tensors_.at(id);
    }
    if (tensor.owner == Owner::kSmall) return;
    const bool known = engine_->record_stream(reinterpret_cast<void*>(tensor.address), stream);
    if (known != (tensor.owner == Owner::kArena)) fault("record_stream() is wrong for tensor", id);
  }

  // Nothing may run beside it: totals are compared exactly.
  void check_books() {
    const Engine::Snapshot now = engine_->snapshot();
    const Counters& c = now.counters;
    const std::lock_guard lock(lock_);
    const Bytes parts = c.planned.bytes + c.gap.bytes + c.diverged.bytes + c.unplanned.bytes;
    const std::int64_t requests =
        c.planned.requests + c.gap.requests + c.diverged.requests + c.unplanned.requests;
    if (parts != c.all.bytes || requests != c.all.requests) note_fault("counters do not add up");
    if (c.all.requests != requests_ || c.small.requests != small_requests_) {
      note_fault("counted " + std::to_string(c.all.requests) + " requests, made " + std::to_string(requests_));
    }
    if (now.arena_live != arena_live_) note_fault("live bytes of the arena are wrong");
    if (now.live != arena_live_ + upstream_live_) note_fault("live bytes are wrong");
    if (now.extent != range_->extent() || now.arena != range_->held()) note_fault("the arena's extent is not its range's");
    if (!engine_->is_valid()) note_fault("is_valid() is false");
    if (fences_.misuses() > 0) note_fault("an event was waited for twice");
  }

  Engine& engine() { return *engine_; }
  fakes::FakeRange& range() { return *range_; }
  const fakes::FakeFences& fences() const { return fences_; }
  Bytes arena_live() const { return arena_live_; }
  // The highest that arena_live() was since the last call.
  Bytes take_arena_peak() { return std::exchange(arena_peak_, arena_live_); }
  const std::optional<std::string>& first_fault() const { return first_fault_; }

 private:
  enum class Owner : std::uint8_t { kSmall, kArena, kUpstream };
  struct Tensor {
    std::uintptr_t address = 0;
    Bytes size;
    Owner owner = Owner::kSmall;
  };

  // With the lock.
  TensorId add(const Tensor& tensor) {
    const TensorId id = ++last_id_;
    tensors_.emplace(id, tensor);
    if (tensor.owner == Owner::kSmall) {
      small_requests_ += 1;
      return id;
    }
    requests_ += 1;
    const auto end = tensor.address + static_cast<std::uintptr_t>(tensor.size.value);
    const auto next = painted_.lower_bound(tensor.address);
    const bool meets_next = next != painted_.end() && next->first < end;
    const bool meets_last = next != painted_.begin() && std::prev(next)->second > tensor.address;
    if (meets_next || meets_last) note_fault("two live blocks share a byte: tensor " + std::to_string(id));
    painted_[tensor.address] = end;
    if (tensor.owner == Owner::kUpstream) {
      upstream_live_ += tensor.size;
      return id;
    }
    arena_live_ += tensor.size;
    arena_peak_ = std::max(arena_peak_, arena_live_);
    const auto offset = static_cast<std::int64_t>(tensor.address - reinterpret_cast<std::uintptr_t>(range_->base()));
    if (offset % 512 != 0) note_fault("tensor " + std::to_string(id) + " is not aligned");
    // Other threads may be growing the range: only a lone thread can compare.
    if (!threads_ && offset + tensor.size.value > range_->extent().value) {
      note_fault("tensor " + std::to_string(id) + " lies beyond the range's memory");
    }
    if (!threads_ && any_meets(range_->holes(), Offset{offset}, tensor.size)) note_fault("tensor " + std::to_string(id) + " lies in a hole");
    return id;
  }

  Tensor take(TensorId id) {
    const std::lock_guard lock(lock_);
    const auto found = tensors_.find(id);
    const Tensor tensor = found->second;
    tensors_.erase(found);
    if (tensor.owner == Owner::kSmall) return tensor;
    painted_.erase(tensor.address);
    (tensor.owner == Owner::kArena ? arena_live_ : upstream_live_) -= tensor.size;
    return tensor;
  }

  void fault(const char* what, TensorId id) {
    const std::lock_guard lock(lock_);
    note_fault(std::string(what) + " " + std::to_string(id));
  }
  void note_fault(std::string what) {
    if (!first_fault_) first_fault_ = std::move(what);
  }

 public:
  // From here on several threads use it.
  void begin_threads() { threads_ = true; }
  void end_threads() { threads_ = false; }

 private:
  fakes::FakeFences fences_;
  fakes::FakeRange* range_ = nullptr;
  std::unique_ptr<Engine> engine_;
  mutable std::mutex lock_;  // guards what follows
  std::unordered_map<TensorId, Tensor> tensors_;
  std::map<std::uintptr_t, std::uintptr_t> painted_;  // begin to end of every live block
  TensorId last_id_ = 0;
  std::uintptr_t next_upstream_ = 0x1000'0000;
  std::int64_t requests_ = 0;
  std::int64_t small_requests_ = 0;
  Bytes arena_live_, upstream_live_, arena_peak_;
  std::optional<std::string> first_fault_;
  bool threads_ = false;
};

inline void free_all(SimulatedAdaptor& adaptor, const std::vector<TensorId>& tensors) {
  for (const TensorId tensor : tensors) adaptor.free(tensor);
}

inline void expect_no_fault(SimulatedAdaptor& adaptor) {
  adaptor.check_books();
  EXPECT_FALSE(adaptor.first_fault()) << *adaptor.first_fault();
}

}  // namespace ebbtide::simulation
