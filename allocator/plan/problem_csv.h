// Problems and plans as text, in google/minimalloc's format, so that anyone's instance can be read:
//
//   id,lower,upper,size          id: any text without a comma; live in [lower, upper); size in
//   bytes b1,0,3,4                     Also id: buffer, buffer_id. Also lower: begin, start. `end`
//   in place b2,3,9,4                     of upper is the last tick of life: one is added, to gaps'
//   ends too.
//
//   Optional columns: alignment (default 1), offset (fixed; empty or negative: none), gaps ("5-7
//   8-9": not live in [5, 7) and [8, 9); "5-7@0:64": only its bytes 0 to 64 are in use there), hint
//   (of a solver of theirs; read and not used). Ours: arena (any name: buffers of different arenas
//   share no addresses).
#pragma once

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solution.h"

namespace ebbtide {

struct NamedProblem {
  Problem problem;
  std::vector<std::string> ids;  // ids[i] belongs to buffers[i]; may repeat
  // arenas[a] is the name of arena a; in the order in which they come first. One with an empty name
  // where the problem names none. Not empty.
  std::vector<std::string> arenas = {""};

  // Which arena has the name: one that is new if none has.
  std::uint32_t arena_named(std::string_view name);
};

// Reads up to the first empty line or the end, in any order of columns; LF or CRLF. The problem has
// passed check(). kInvalidArgument names `source`, the line and the column; kInfeasible: buffers
// are fixed at overlapping offsets.
Result<NamedProblem> read_problem_csv(std::istream& input, const std::string& source);
Result<NamedProblem> read_problem_csv(const std::string& path);

// Reads the columns id and offset; others are not looked at. The height is the highest end. Rows
// belong to the buffers in order where all ids agree, else by id: then no id may repeat. The
// solution is not judged. kInvalidArgument as above; kBadPlan: a buffer without a row, or a row
// without buffer.
Result<Solution> read_plan_csv(std::istream& input, const std::string& source,
                               const NamedProblem& named);

// Writes what read_problem_csv reads. With a solution, the column `offset` is its offsets.
// Requires: check(problem), an id for each buffer.
void write_problem_csv(std::ostream& output, const NamedProblem& named,
                       const Solution* solution = nullptr);

}  // namespace ebbtide
