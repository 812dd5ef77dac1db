// Valleys filled part by part (parts.h, valley_fill.h): less to look through for each buffer, a
// rule of its own for each part, and several parts at the same time.
//
// Note [Base]: in a long trace some buffers live through much of it and hold parts together:
// weights, accumulated gradients. Where they lie level on each other they are placed first, at the
// bottom, and the parts of the rest begin on their skyline. Fewer buffers gain nothing by it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "allocator/plan/instance.h"
#include "allocator/plan/parts.h"
#include "allocator/plan/valley_fill.h"

namespace ebbtide {

struct ValleyPlan {
  std::vector<std::int64_t> offsets;
  std::int64_t height = 0;
  bool is_packed = true;  // see Fill
};

// Used for one plan. The instance must outlive it. Nothing is placed below a fixed buffer: where
// there are any, what compares neighbours is better, as long as it can be afforded.
class PartsFill {
 public:
  explicit PartsFill(const Instance& instance);

  std::size_t count() const { return parts_.count(); }
  // Fills a part by one rule after another, until it is no higher than the target or should_stop
  // (may be empty) says so, and keeps the lowest. Pure: the same plan in any order of parts;
  // different parts may be filled at the same time.
  void fill(std::size_t part, std::span<const FillRule> rules, std::int64_t target,
            const std::function<bool()>& should_stop);
  // After every part was filled.
  ValleyPlan plan() &&;

 private:
  std::vector<bool> fill_base();
  void place_fixed(std::vector<bool>& is_placed);

  const Instance& instance_;
  std::vector<std::int64_t> offsets_;
  Skyline skyline_;  // of the base
  Fill base_;
  Parts parts_;              // of the others
  std::vector<Fill> fills_;  // of each part
};

// All parts by the rules, one after another.
ValleyPlan fill_parts(const Instance& instance, std::span<const FillRule> rules,
                      std::int64_t target, const std::function<bool()>& should_stop);

}  // namespace ebbtide
