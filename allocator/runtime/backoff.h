// Whether rounds of one kind are worth serving.
#pragma once

#include "allocator/base/units.h"

namespace ebbtide {

// A program that does nothing twice (pieces whose number follows the length, generation) gets nothing from plans and pays
// for them in time, and in memory where they do not fit. After some rounds in a row that found too few of their bytes
// planned, those that come follow no plan for a while: see Note [Gaps]. Then one is on trial: it is followed and learnt from,
// and served as the others. If it was as planned, serving goes on; if not, the next rest is twice as long.
//
// Invariant: is_trial_ only while nothing is left of the rest.
class Backoff {
 public:
  bool is_resting() const { return left_ > 0; }
  bool is_on_trial() const { return is_trial_; }

  // A round ended. `planned`: of all bytes that it asked for, those that a plan had a place for. `is_new`: nothing like its
  // input was known, so that it says little of those that repeat.
  void note(Bytes planned, Bytes all, bool is_new = false) {
    if (all < kTooLittle) return;
    if (left_ > 0) {
      is_trial_ = --left_ == 0;
      return;
    }
    const bool fits = planned.value >= all.value * kFitting / 10;
    misfits_ = fits ? 0 : misfits_ + (is_new ? 1 : kWeightOfKnown);
    if (fits && !is_trial_) rest_ = kFirstRest;
    const bool gives_up = !fits && (is_trial_ || misfits_ >= kMisfits);
    is_trial_ = false;
    if (gives_up) rest();
  }

 private:
  static constexpr Bytes kTooLittle{1 << 20};
  static constexpr int kFitting = 6;  // tenths: rounds of programs that repeat have more, seldom less even when new
  static constexpr int kWeightOfKnown = 3;
  static constexpr int kMisfits = 9;  // three rounds of inputs that were known, or nine of new ones
  static constexpr int kFirstRest = 8;     // rounds
  static constexpr int kLongestRest = 512;

  void rest() {
    left_ = rest_;
    rest_ = rest_ < kLongestRest ? 2 * rest_ : rest_;
    misfits_ = 0;
  }

  int misfits_ = 0;  // in a row, by weight
  int left_ = 0;     // rounds of the rest
  int rest_ = kFirstRest;
  bool is_trial_ = false;
};

}  // namespace ebbtide
