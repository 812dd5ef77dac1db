// Requests that no plan can serve at the moment: they are answered without the engine's lock.
#pragma once

#include <atomic>
#include <cstdint>

#include "allocator/base/units.h"
#include "allocator/device/stream_fences.h"
#include "allocator/runtime/counters.h"

namespace ebbtide {

// What goes upstream without being written down. Set with the engine's lock whenever that changes, asked without it:
// a request that meets the change itself is served as if it had come a moment earlier.
class Bypass {
 public:
  enum class Reason : std::uint8_t { kNone, kPrologue, kElsewhere };
  enum class Rule : std::uint8_t {
    kNobody,        // every request is to be looked at
    kOtherStreams,  // only the home stream's are
    kEverybody,     // none is
    kPrologue,      // none is; no iteration has begun
  };
  struct State {
    Rule rule = Rule::kNobody;
    StreamId home;
    bool watches_backward = false;  // the first request of a backward pass is to be looked at
    bool operator==(const State&) const = default;
  };

  // With the engine's lock.
  void set(const State& state) {
    if (state == state_) return;
    state_ = state;
    home_.store(state.home.value, std::memory_order_relaxed);
    watches_backward_.store(state.watches_backward, std::memory_order_relaxed);
    rule_.store(state.rule, std::memory_order_release);
  }

  // For whoever asks, before it is known on which stream. kNone: it depends, or nothing passes.
  Reason reason_for_all() const {
    switch (rule_.load(std::memory_order_acquire)) {
      case Rule::kNobody:
      case Rule::kOtherStreams: return Reason::kNone;
      case Rule::kEverybody: return Reason::kElsewhere;
      case Rule::kPrologue: return Reason::kPrologue;
    }
    return Reason::kNone;
  }
  Reason reason_for(StreamId stream) const {
    const bool is_others = rule_.load(std::memory_order_acquire) == Rule::kOtherStreams && !(stream == home());
    return is_others ? Reason::kElsewhere : reason_for_all();
  }
  // Whether the home stream's requests are looked at, and no others.
  bool lets_home_in() const { return rule_.load(std::memory_order_acquire) == Rule::kOtherStreams; }
  StreamId home() const { return {home_.load(std::memory_order_relaxed)}; }
  bool watches_backward() const { return watches_backward_.load(std::memory_order_relaxed); }

  void count(Bytes size) { elsewhere_.add(size); }
  void take_back(Bytes size) { elsewhere_.take_back(size); }
  ServedCount elsewhere() const { return elsewhere_.read(); }

 private:
  State state_;  // guarded by the engine's lock
  std::atomic<Rule> rule_{Rule::kNobody};
  std::atomic<bool> watches_backward_{false};
  std::atomic<std::uint64_t> home_{0};
  SharedCount elsewhere_;
};

}  // namespace ebbtide
