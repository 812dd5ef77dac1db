// Problems as text, in google/minimalloc's format, so that anyone's instance can be read:
//
//   id,lower,upper,size          id: any text; live in [lower, upper); size in bytes
//   b1,0,3,4                     Optional columns: alignment (default 1), offset (fixed, empty or
//   b2,3,9,4                     -1: none), gaps ("5-7 8-9": not live in [5, 7) and [8, 9)).
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide {

struct NamedProblem {
  Problem problem;
  std::vector<std::string> ids;  // ids[i] belongs to buffers[i]
};

// Reads up to the first empty line or the end, in any order of columns; LF or CRLF. The problem
// has passed check(). kInvalidArgument names `source` and the line.
Result<NamedProblem> read_problem_csv(std::istream& input, const std::string& source);
Result<NamedProblem> read_problem_csv(const std::string& path);

// Writes what read_problem_csv reads. With a solution, the column `offset` is its offsets.
// Requires: check(problem), an id for each buffer.
void write_problem_csv(std::ostream& output, const NamedProblem& named,
                       const Solution* solution = nullptr);

}  // namespace ebbtide
