// An arena range of any capacity: over bare numbers or over real memory, failing when told to, and with holes.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "allocator/base/spans.h"
#include "allocator/device/arena_range.h"

namespace ebbtide::fakes {

// Serialised by its owner like every range; reserved() and peak_reserved() may be asked at any time, as
// the statistics of a real upstream may. Extents and holes are multiples of `grain`. Like upstream it fills holes from the lowest on,
// before it grows.
class FakeRange final : public ArenaRange {
 public:
  struct Options {
    Bytes capacity{std::int64_t{1} << 46};
    Bytes grain{512};
    bool grows_in_place = true;
    bool is_real = false;  // real memory of `capacity` bytes; otherwise addresses are only numbers
  };

  struct Call {
    enum class Kind : std::uint8_t { kExtend, kShrink, kRelease, kFill } kind;
    Bytes wanted;
    Bytes extent;  // after the call
    bool ok;
    bool operator==(const Call&) const = default;
  };

  FakeRange() : FakeRange(Options{}) {}
  explicit FakeRange(Options options) : options_(options) {
    if (!options.is_real) return;
    const auto room = static_cast<std::size_t>(options.capacity.value + kAlignment);
    memory_ = std::make_unique_for_overwrite<std::byte[]>(room);
    const auto begin = reinterpret_cast<std::uintptr_t>(memory_.get());
    const auto aligned = align_up(static_cast<std::int64_t>(begin), kAlignment);
    base_ = static_cast<std::uintptr_t>(aligned);
  }

  void* base() const override { return reinterpret_cast<void*>(base_); }
  Bytes extent() const override { return extent_; }
  bool grows_in_place() const override { return options_.grows_in_place; }

  Status extend_to(Bytes wanted) override {
    const std::optional<Error> error = refusal(wanted);
    if (!error && wanted > extent_) {
      holes_.clear();
      extent_ = align_up(wanted, options_.grain);
    }
    note_held();
    calls_.push_back({Call::Kind::kExtend, wanted, extent_, !error});
    if (error) return *error;
    return Nothing{};
  }

  void shrink_to(Bytes kept) override {
    if (during_shrink) during_shrink();
    extent_ = std::min(extent_, align_up(kept, options_.grain));
    while (!holes_.empty() && holes_.back().end.value >= extent_.value) {
      extent_ = std::min(extent_, Bytes{holes_.back().begin.value});
      holes_.pop_back();
    }
    note_held();
    calls_.push_back({Call::Kind::kShrink, kept, extent_, true});
  }

  const std::vector<Span>& holes() const override { return holes_; }

  void release_inside(const std::vector<Span>& idle, Bytes wanted) override {
    if (during_shrink) during_shrink();
    std::vector<Span> holes = holes_;
    Bytes given;
    for (const Span& span : idle) {
      const Offset begin = align_up(span.begin, options_.grain);
      const Offset end{span.end.value / options_.grain.value * options_.grain.value};
      const Offset enough = std::min(end, begin + align_up(wanted - given, options_.grain));
      if (!options_.grows_in_place || given >= wanted || begin >= enough) continue;
      holes.push_back({begin, enough});
      given += enough - begin;
    }
    holes_ = merged(std::move(holes));
    note_held();
    calls_.push_back({Call::Kind::kRelease, wanted, extent_, true});
  }

  Status fill(Span span) override {
    const auto is_full = [&] { return !any_meets(holes_, span.begin, span.end - span.begin); };
    while (!is_full() && held() + options_.grain <= options_.capacity) {
      Span& lowest = holes_.front();
      lowest.begin = lowest.begin + options_.grain;
      if (lowest.begin >= lowest.end) holes_.erase(holes_.begin());
    }
    note_held();
    calls_.push_back({Call::Kind::kFill, span.end - span.begin, extent_, is_full()});
    if (!is_full()) return Error{ErrorCode::kOutOfDeviceMemory, "capacity is " + to_string(options_.capacity)};
    return Nothing{};
  }

  // Memory that it holds.
  Bytes held() const {
    Bytes held = extent_;
    for (const Span& hole : holes_) held -= hole.end - hole.begin;
    return held;
  }

  Bytes reserved() const override { return {reserved_}; }
  Bytes peak_reserved() const override { return {peak_reserved_}; }
  std::int64_t upstream_trims() const override { return 0; }
  Bytes limit() const override { return options_.capacity; }

  // The n-th extend_to from now on fails (1: the next one); 0: none does.
  void fail_extend(int n) { fail_in_ = n; }
  // Every extend_to beyond this fails, as when others hold the device's memory.
  void set_capacity(Bytes capacity) { options_.capacity = capacity; }
  const std::vector<Call>& calls() const { return calls_; }

  std::function<void()> during_shrink;  // runs inside shrink_to and release_inside, before memory goes

 private:
  static constexpr std::int64_t kAlignment = 4096;

  void note_held() {
    reserved_ = held().value;
    peak_reserved_ = std::max(peak_reserved_.load(), reserved_.load());
  }

  std::optional<Error> refusal(Bytes wanted) {
    if (fail_in_ > 0 && --fail_in_ == 0) return Error{ErrorCode::kOutOfDeviceMemory, "told to fail"};
    if (align_up(wanted, options_.grain) > options_.capacity) {
      return Error{ErrorCode::kOutOfDeviceMemory, "capacity is " + to_string(options_.capacity)};
    }
    if (!options_.grows_in_place && extent_.value > 0 && wanted > extent_) {
      return Error{ErrorCode::kUnsupported, "does not grow in place"};
    }
    return std::nullopt;
  }

  Options options_;
  std::unique_ptr<std::byte[]> memory_;
  std::uintptr_t base_ = 0x7000'0000'0000;
  Bytes extent_;
  std::vector<Span> holes_;  // sorted and disjoint, below extent_
  std::atomic<std::int64_t> reserved_{0};
  std::atomic<std::int64_t> peak_reserved_{0};
  int fail_in_ = 0;
  std::vector<Call> calls_;
};

}  // namespace ebbtide::fakes
