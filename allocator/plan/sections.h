// The time axis cut where it matters: only the moments at which some set of live buffers is not
// contained in another one (the maximal cliques of the conflict graph). Two buffers conflict if and
// only if they share a section; a plan is valid if and only if it is valid in every section.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"

namespace ebbtide {

// Sections [first, last), never empty.
struct SectionRange {
  std::uint32_t first;
  std::uint32_t last;

  bool operator==(const SectionRange&) const = default;
};

// Immutable. Buffers of size zero are in no section. O(n log n) to build.
class Sections {
 public:
  explicit Sections(const CompactProblem& problem);

  std::uint32_t count() const { return static_cast<std::uint32_t>(loads_.size()); }
  // The ranges of a buffer, in order of time; touching ones are joined.
  std::span<const SectionRange> of(std::uint32_t buffer) const {
    return {ranges_.data() + starts_[buffer], ranges_.data() + starts_[buffer + 1]};
  }
  // The sum of the sizes of a section's members.
  std::int64_t load(std::uint32_t section) const { return loads_[section]; }
  std::int64_t max_load() const { return max_load_; }

 private:
  std::vector<std::uint32_t> starts_;
  std::vector<SectionRange> ranges_;
  std::vector<std::int64_t> loads_;
  std::int64_t max_load_ = 0;
};

}  // namespace ebbtide
