// Which known program a running round belongs to, when it does not do what was expected of it.
#pragma once

#include <span>

#include "allocator/runtime/program_book.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

// A round up to the request of `next` bytes.
struct RunningRound {
  const Round& round;
  Bytes next;
  Bytes smallest;                                  // no request is smaller
  std::span<const ProgramBook::Resident> residents;  // sorted by root
};

// The planned program of the book that differs in the fewest bytes from the round so far, by what the one has
// and the other lacks; `followed` unless another is better. If the residents are those of `followed`, only
// programs that share them are considered. Cost: the round is replayed along every program of its kind.
const Program& closest_program(const ProgramBook& book, const Program& followed, const RunningRound& running);

}  // namespace ebbtide
