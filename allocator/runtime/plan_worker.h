// The thread that learns from finished rounds and makes plans, beside training and never in its way.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "allocator/runtime/plan_maker.h"
#include "allocator/runtime/program_book.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

// Owns the book that grows; publishes immutable copies. Thread-safe. The thread starts with the first
// round submitted and does not survive a fork (then submit is without effect).
class PlanWorker {
 public:
  // `planning_time`: the most that improving a plan may take. Effort is bounded by work anyway, so that a busy machine
  // makes the same plans; this is for the case that the work takes far longer than it should.
  PlanWorker(ProgramBook book, Bytes alignment, std::chrono::milliseconds planning_time = std::chrono::seconds(2));
  ~PlanWorker();
  PlanWorker(const PlanWorker&) = delete;
  PlanWorker& operator=(const PlanWorker&) = delete;

  // `last_served`: by program id, the last round that each program served.
  void submit(Round round, const ProgramBook::Use& last_served);
  // The latest book; never null.
  std::shared_ptr<const ProgramBook> published() const;
  // Waits until everything submitted is planned; false when `limit` passes first.
  bool wait_idle(std::chrono::milliseconds limit);
  void stop();
  void abandon_after_fork();

  struct Times {
    std::int64_t total_ns = 0, longest_ns = 0;
    std::int64_t plans = 0;
  };
  Times times() const;

 private:
  void run();

  const Bytes alignment_;
  const std::chrono::milliseconds planning_time_;
  mutable std::mutex mutex_;  // guards all below; never held while planning
  std::condition_variable changed_;
  std::deque<Round> queue_;
  ProgramBook::Use last_served_;
  std::shared_ptr<const ProgramBook> published_;
  Times times_;
  bool busy_ = false;
  bool stopping_ = false;
  bool abandoned_ = false;
  std::thread thread_;
  ProgramBook book_;  // the thread's own
};

}  // namespace ebbtide
