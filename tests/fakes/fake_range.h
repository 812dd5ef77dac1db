// An arena range of any capacity: over bare numbers or over real memory, failing when told to.
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

#include "allocator/device/arena_range.h"

namespace ebbtide::fakes {

// Serialised by its owner like every range; reserved() and peak_reserved() may be asked at any time, as
// the statistics of a real upstream may. Extents are multiples of `grain`.
class FakeRange final : public ArenaRange {
 public:
  struct Options {
    Bytes capacity{std::int64_t{1} << 46};
    Bytes grain{512};
    bool grows_in_place = true;
    bool is_real = false;  // real memory of `capacity` bytes; otherwise addresses are only numbers
  };

  struct Call {
    enum class Kind : std::uint8_t { kExtend, kShrink } kind;
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
    if (!error) extent_ = std::max(extent_, align_up(wanted, options_.grain));
    reserved_ = extent_.value;
    peak_reserved_ = std::max(peak_reserved_.load(), extent_.value);
    calls_.push_back({Call::Kind::kExtend, wanted, extent_, !error});
    if (error) return *error;
    return Nothing{};
  }

  void shrink_to(Bytes kept) override {
    if (during_shrink) during_shrink();
    extent_ = std::min(extent_, align_up(kept, options_.grain));
    reserved_ = extent_.value;
    calls_.push_back({Call::Kind::kShrink, kept, extent_, true});
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

  std::function<void()> during_shrink;  // runs inside shrink_to, before memory goes

 private:
  static constexpr std::int64_t kAlignment = 4096;

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
  std::atomic<std::int64_t> reserved_{0};
  std::atomic<std::int64_t> peak_reserved_{0};
  int fail_in_ = 0;
  std::vector<Call> calls_;
};

}  // namespace ebbtide::fakes
