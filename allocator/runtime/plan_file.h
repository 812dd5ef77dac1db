// Programs and their plans in a file: made by a dry run or an earlier run, loaded by the next.
#pragma once

#include <map>
#include <string>

#include "allocator/base/result.h"
#include "allocator/runtime/program_book.h"

namespace ebbtide {

// One book per device index (-1: host memory).
using PlanBooks = std::map<int, ProgramBook>;

class PlanFile {
 public:
  static constexpr std::uint32_t kVersion = 3;

  // kBadPlan, with the file and the reason in one line, for anything that is not a plan of this
  // version: cut off, damaged (checksum), or with plans that the validator refuses.
  static Result<PlanBooks> load(const std::string& path);
  // Writes beside `path` and renames, so that a reader never sees half a file.
  static Status save(const std::string& path, const PlanBooks& books);

  static std::string encode(const PlanBooks& books);
  static Result<PlanBooks> decode(const std::string& bytes);
};

}  // namespace ebbtide
