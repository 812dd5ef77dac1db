// Decides where a round ends: hints propose, what is still alive decides.
#pragma once

#include <cstdint>
#include <map>

#include "allocator/base/event.h"
#include "allocator/base/units.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

// What the cutter knows of the running round.
struct RoundState {
  bool is_prologue = false;
  bool is_empty = true;
  RoundKind kind = RoundKind::kUnmarked;
  bool has_seen_backward = false;
  Bytes live;  // born in this round and alive
  Bytes peak;  // at their highest
  Bytes kept;  // of `live`, after a backward: what is no gradient by its size
};

// Not thread-safe. A forward that follows another without a backward in between belongs to the same
// round as long as the first one's activations live: two models in one loss, a teacher and its student. So does
// one that follows a backward whose graph lives on, because gradients of its gradients are wanted. Where a program's backward
// is none of a module's (tensors and functions alone), nothing but the end of an optimizer's step tells where it begins anew.
class RoundCutter {
 public:
  enum class Decision : std::uint8_t { kIgnore, kCut, kDescribe };

  // Notes what the mark tells of the program.
  Decision decide(MarkKind mark, const RoundState& round);
  static RoundKind kind_of(MarkKind mark);
  // A small number for an address: the same in every run of a program, so that plans can be saved. What a mark says
  // of the form, in the bits above an address, stays above the number.
  std::uint32_t ordinal(std::uint64_t source);

 private:
  static constexpr int kObjectBits = 48;
  static constexpr std::uint64_t kObject = (std::uint64_t{1} << kObjectBits) - 1;

  std::map<std::uint64_t, std::uint32_t> ordinals_;
  bool backward_is_unmarked_ = false;  // the last one was in a round that neither a module nor the user began
};

}  // namespace ebbtide
