// From programs to addresses: states the problem of every program, has it solved and judged.
#pragma once

#include <functional>

#include "allocator/base/result.h"
#include "allocator/runtime/program_book.h"

namespace ebbtide {

struct PlanOptions {
  Bytes alignment{512};                // of every planned block
  std::function<bool()> should_stop;   // ends improvement early; may be empty
};

// Plans every program of the book that is not planned yet, with all residents at their homes: a
// resident has one place, the same in every program in which it is alive. Programs do not run at the
// same time, so they share the space that residents leave.
//
// Where nothing has changed that a plan depends on, the plans in force stay, and none is made; but above what is good
// enough they are tried anew, as long as that lowers them.
//
// Homes that were given before are kept unless that costs height, so that a new plan finds the
// residents of the last one where they are.
//
// The validator judges every plan; kBadPlan if it refuses one (then nothing may be served from it).
Status make_plans(ProgramBook& book, const PlanOptions& options);

// Judges the plans that a book already has: kBadPlan if two tensors of a program would meet.
Status validate_plans(const ProgramBook& book);

}  // namespace ebbtide
