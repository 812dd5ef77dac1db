// The strategies of solve_anytime() and whose turn it is.
//
// Note [Rounds]: the work is a numbered list of attempts, each with its strategy, its seed and an
// effort in counted work, never in time. A round is one attempt for each thread; when all have
// ended the best is taken, the first of equals. So the result depends on the number of threads but
// not on which of them is quick. Only an attempt after one that ends the whole search is given up.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "allocator/plan/anytime.h"
#include "allocator/plan/exact_search.h"
#include "allocator/plan/instance.h"
#include "allocator/plan/parts_fill.h"

namespace ebbtide {

// Used once, by one thread (run() starts the others and joins them).
class Portfolio {
 public:
  // Requires: check(problem). The options must outlive it.
  Portfolio(const Problem& problem, const AnytimeOptions& options);

  Solution run();
  Bytes lower_bound() const { return {bound_}; }
  double seconds() const;

 private:
  // What an attempt came to. Nothing: neither a lower plan nor a proof.
  struct Finding {
    std::optional<Solution> solution;
    std::int64_t impossible = -1;  // proved: no plan of this height
  };

  bool is_over() const;
  bool must_stop();
  std::int64_t round_up_to_step(std::int64_t height) const;
  void take(Solution solution);
  void take_offsets(const std::vector<std::int64_t>& offsets);
  void raise_bound(std::int64_t bound);
  void report();
  std::int64_t pass_cost() const;
  void first_plan();
  void share_out(std::size_t count, const std::function<void(std::size_t)>& work) const;
  ValleyPlan fill_parts(const Instance& instance);
  void plan_large();
  void run_round(std::uint64_t round);
  Finding attempt(std::uint64_t number, unsigned thread);
  Finding search_exactly(std::uint64_t number, unsigned thread);
  Finding search_locally(std::uint64_t number);
  std::int64_t capacity_of(std::uint64_t number) const;
  Solution solution_of(const std::vector<std::int64_t>& offsets) const;

  const AnytimeOptions& options_;
  std::chrono::steady_clock::time_point begin_;
  Instance instance_;
  std::int64_t step_;  // every height that a plan needs is a multiple of it
  bool is_exact_;      // small enough for ExactSearch
  bool is_large_;      // so large that all there is to try is tried at once
  unsigned threads_;
  std::int64_t bound_;
  Solution best_;
  std::vector<std::unique_ptr<ExactSearch>> searches_;  // one for each thread, made when needed

  std::mutex asking_;                 // guards the caller's should_stop
  std::atomic<bool> stopped_{false};  // the limit or the caller
  std::atomic<std::uint64_t> ended_by_{
      ~std::uint64_t{0}};  // the first attempt that ends the search
};

}  // namespace ebbtide
