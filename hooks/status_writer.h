// Fills the page that `ebbtide top` reads, at marks and no more often than it is worth.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "allocator/base/event.h"
#include "allocator/runtime/engine.h"
#include "hooks/swap_table.h"
#include "profiler/status_page.h"

namespace ebbtide {

// Thread-safe. A step is what lies between two ends of an optimizer's step, or between two marks of the user's once
// there is one.
class StatusWriter {
 public:
  static constexpr std::chrono::milliseconds kPeriod{200};

  // Where no page can be made, it does nothing.
  explicit StatusWriter(const std::string& path);

  // Usually one comparison: numbers are gathered every kPeriod.
  void mark(MarkKind kind, const std::vector<Engine*>& engines, const SwapTable& swaps);
  // The page's name goes; later marks do nothing.
  void close();

 private:
  void count_step(MarkKind kind, std::int64_t now_ns);
  void gather(std::int64_t now_ns, const std::vector<Engine*>& engines, const SwapTable& swaps);

  std::mutex lock_;  // guards what follows
  std::unique_ptr<StatusPage> page_;
  Status1 status_;
  MarkKind step_kind_ = MarkKind::kOptimizerEnd;
  std::int64_t last_step_at_ns_ = 0;  // 0: there was none
};

}  // namespace ebbtide
