// What stands for values that no simulated kernel computes, where a program looks at them.
//
// Kernels do nothing, so a loss, a gradient's norm or a router's choice is not known. A *typical*
// value keeps the program on the way that it takes on a real device: see docs/foresight.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "allocator/base/result.h"
#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

// Invariant: low < high, both finite.
struct TypicalValues {
  double number = 1;  // a floating-point tensor of one element: a loss, a norm
  double low = 0;     // elements of larger ones are spread evenly
  double high = 1;    // between these two
  bool spreads_choices =
      true;              // topk, argmax, multinomial ...: evenly over what there is to choose
  double found_inf = 0;  // of a gradient scaler: 0: the step is taken

  // The element at `index` of a tensor of several: the multiples of the golden ratio, modulo one,
  // fill an interval evenly however many of them are taken (H. Weyl, 1916).
  double element(std::int64_t index) const {
    constexpr double kGoldenRatio = 0.6180339887498949;
    const double share = kGoldenRatio * static_cast<double>(index + 1);
    return low + (high - low) * (share - static_cast<double>(static_cast<std::int64_t>(share)));
  }
  // Which of `candidates` comes `slot`-th in row `row` of a choice of `chosen`. The rows together
  // name each candidate equally often, to one; no row names one twice. Requires: chosen <=
  // candidates, or that a row may repeat what it names.
  std::int64_t choice(std::int64_t row, std::int64_t slot, std::int64_t chosen,
                      std::int64_t candidates) const {
    if (!spreads_choices) return slot % candidates;
    // What is sorted whole begins one further in each row, so that the first of each are spread,
    // too.
    const std::int64_t step = chosen < candidates ? chosen : 1;
    return (row * step + slot) % candidates;
  }
};

// "number=1,low=0,high=1,choice=even,found_inf=0": any of them, in any order. The error names the
// part.
EBBTIDE_DRYRUN_API Result<TypicalValues> parse_typical(std::string_view text);

// The form that parse_typical reads.
EBBTIDE_DRYRUN_API std::string to_text(const TypicalValues& typical);

}  // namespace ebbtide::dryrun
