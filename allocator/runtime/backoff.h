// Whether rounds of one kind are worth serving.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>

#include "allocator/base/units.h"

namespace ebbtide {

// A program that does nothing twice (pieces whose number follows the length, generation) gets nothing from plans and pays
// for them in time, and in memory where they do not fit. After some rounds in a row that found too few of their bytes
// planned, those that come follow no plan for a while: see Note [Gaps]. Then one is on trial: it is followed and learnt from,
// and served as the others (unless gaps would need far more than its plan). If it was as planned, serving goes on; if not, the
// next rest is twice as long.
//
// In memory a plan pays only if it is right: a round that does something else finds the places of what does not come free
// and in its way. So what comes after a round that was not nearly all as planned is on trial, too, and where inputs are new, what
// comes after several such rounds of the last eight. Rounds of inputs that were known say nothing of those of new ones, and
// these nothing of them.
//
// Invariant: is_trial_ only while nothing is left of the rest.
class Backoff {
 public:
  // What is known of a round that ended.
  struct Outcome {
    Bytes all;                     // that it asked for, but for what stays for good
    Bytes planned;                 // of that, what a plan had a place for
    std::optional<Bytes> fitting;  // likewise, of a trial with what is of another size than was expected and fits; none: no plan was tried
    bool is_new = false;           // nothing like its input was known, so that it says little of those that repeat
    bool began_with_another = false;  // it turned out to be of another program
  };

  bool is_resting() const { return left_ > 0; }
  // A round begins, of an input as it is known by then. Returns whether it is on trial.
  bool begin(bool is_new) {
    began_as_new_ = is_new;
    return is_on_trial(is_new);
  }
  bool is_on_trial(bool is_new) const { return is_trial_ || (is_new ? new_.was_wrong() || new_.is_often_wrong() : known_.was_wrong()); }
  // No round is served by a plan, whatever its input.
  bool is_idle() const { return is_resting() || (is_on_trial(false) && is_on_trial(true)); }

  void note(const Outcome& outcome) {
    if (outcome.all < kTooLittle) return;
    if (left_ > 0) {
      is_trial_ = --left_ == 0;
      return;
    }
    if (outcome.fitting) note_plan(outcome);
    const Bytes planned = is_trial_ ? outcome.planned : outcome.fitting.value_or(outcome.planned);
    const bool fits = planned.value >= outcome.all.value * kFitting / 10;
    misfits_ = fits ? 0 : misfits_ + (outcome.is_new ? 1 : kWeightOfKnown);
    if (fits && !is_trial_) rest_ = kFirstRest;
    const bool gives_up = !fits && (is_trial_ || misfits_ >= kMisfits);
    is_trial_ = false;
    if (gives_up) rest();
  }
  // On trial a round needs more memory than the device has: its plan may need less.
  void forget_plans() { known_ = new_ = {}; }

 private:
  static constexpr Bytes kTooLittle{1 << 20};
  static constexpr int kFitting = 6;  // tenths: rounds of programs that repeat have more, seldom less even when new
  static constexpr std::int64_t kWrongPart = 16;  // of a round: so much not as planned, and the plan was not right
  static constexpr int kWeightOfKnown = 3;
  static constexpr int kMisfits = 9;  // three rounds of inputs that were known, or nine of new ones
  static constexpr int kFirstRest = 8;     // rounds
  static constexpr int kLongestRest = 512;

  // What became of plans: bit 0 is of the last round that had one. 1: it was not as planned.
  class Record {
   public:
    bool was_wrong() const { return (wrong_ & 1U) != 0; }
    bool is_often_wrong() const { return std::popcount(wrong_) > kTolerated; }
    void note(bool is_right) { wrong_ = static_cast<std::uint8_t>((wrong_ << 1U) | (is_right ? 0U : 1U)); }

   private:
    static constexpr int kTolerated = 2;  // of eight
    std::uint8_t wrong_ = 0;
  };

  // A round of which it is told late what program it is of would have been served by two plans. (Not again and again: of two
  // programs that take turns, and that nothing tells apart before, each round would be on trial for ever.)
  void note_plan(const Outcome& outcome) {
    is_another_ = outcome.began_with_another && !is_another_;
    const bool is_right = !is_another_ && outcome.fitting->value >= outcome.all.value - outcome.all.value / kWrongPart;
    (began_as_new_ ? new_ : known_).note(is_right);
  }

  void rest() {
    left_ = rest_;
    rest_ = rest_ < kLongestRest ? 2 * rest_ : rest_;
    misfits_ = 0;
  }

  int misfits_ = 0;  // in a row, by weight
  int left_ = 0;     // rounds of the rest
  int rest_ = kFirstRest;
  bool is_trial_ = false;
  bool began_as_new_ = false;  // the round under way: see begin()
  bool is_another_ = false;    // the last round counted as not right, since it began with another program
  Record known_;               // of rounds of inputs that were known
  Record new_;                 // and of others
};

}  // namespace ebbtide
