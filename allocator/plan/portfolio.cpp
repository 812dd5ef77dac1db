#include "allocator/plan/portfolio.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <thread>
#include <utility>

#include "allocator/plan/orders.h"
#include "allocator/plan/solver.h"
#include "allocator/plan/two_levels.h"

namespace ebbtide {
namespace {

// ExactSearch lists the members of every section and the neighbours of every buffer, and recurses
// once for each buffer.
constexpr std::uint32_t kMostForExact = 1800;
constexpr std::uint64_t kMostMembers = 2'000'000;
// Past this size solve() tries all it has at once.
constexpr std::uint32_t kMostForLocal = 150'000;
constexpr std::uint64_t kLocalEvery =
    64;  // of the attempts on a problem that can be searched exactly
constexpr std::uint64_t kAtTheBound = 6;  // attempts that ask for the lower bound before any other
constexpr std::int64_t kLocalSteps = 200'000;

bool is_small_enough(const Instance& instance) {
  const std::uint32_t count = instance.buffers.count();
  if (count > kMostForExact) return false;
  std::uint64_t members = 0;
  for (std::uint32_t b = 0; b < count; ++b) {
    for (const SectionRange& range : instance.sections.of(b)) members += range.last - range.first;
  }
  return members <= kMostMembers;
}

// Plans that cannot be pushed down rest on sums of sizes, rounded up to alignments, and on fixed
// buffers: all their heights are multiples of this.
std::int64_t common_step(const CompactProblem& problem) {
  std::int64_t step = 0;
  for (const std::int64_t size : problem.sizes) step = std::gcd(step, size);
  for (const std::uint32_t b : problem.fixed_buffers) step = std::gcd(step, problem.fixed[b]);
  if (step == 0) return 1;
  // One that divides the step or is a multiple of it changes nothing; another one makes the step
  // smaller, so ask all again.
  const auto odd_one = [&] {
    return std::ranges::find_if(problem.alignments,
                                [&](std::int64_t a) { return step % a != 0 && a % step != 0; });
  };
  for (auto at = odd_one(); at != problem.alignments.end(); at = odd_one())
    step = std::gcd(step, *at);
  return step;
}

// 1 1 2 1 1 2 4 1 1 2 ... (Luby, Sinclair, Zuckerman 1993): restarts for searches whose luck
// varies.
std::int64_t luby(std::uint64_t i) {
  for (std::uint64_t power = 1;; power *= 2) {
    if (i == power * 2 - 1) return static_cast<std::int64_t>(power);
    if (i < power * 2 - 1) return luby(i - (power - 1));
  }
}

}  // namespace

Portfolio::Portfolio(const Problem& problem, const AnytimeOptions& options)
    : options_(options),
      begin_(std::chrono::steady_clock::now()),
      instance_(problem),
      step_(common_step(instance_.buffers)),
      is_exact_(is_small_enough(instance_)),
      is_large_(instance_.buffers.count() > kMostForLocal),
      threads_(std::max(1U, options.threads)),
      bound_(round_up_to_step(instance_.bound)) {
  searches_.resize(threads_);
}

double Portfolio::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

bool Portfolio::is_over() const {
  if (best_.height.value <= bound_) return true;
  return options_.capacity &&
         (best_.height <= *options_.capacity || bound_ > options_.capacity->value);
}

bool Portfolio::must_stop() {
  if (stopped_) return true;
  bool stop = seconds() > options_.time_limit;
  if (!stop && options_.should_stop) {
    const std::lock_guard lock(asking_);
    stop = options_.should_stop();
  }
  if (stop) stopped_ = true;
  return stop;
}

std::int64_t Portfolio::round_up_to_step(std::int64_t height) const {
  return align_up(height, step_);
}

void Portfolio::report() {
  if (options_.on_progress) options_.on_progress({best_.height, {bound_}, seconds()});
}

void Portfolio::take(Solution solution) {
  if (solution.height >= best_.height) return;
  best_ = std::move(solution);
  report();
}

void Portfolio::raise_bound(std::int64_t bound) {
  if (bound <= bound_) return;
  bound_ = bound;
  report();
}

// In SolveOptions::improvement_steps.
std::int64_t Portfolio::pass_cost() const {
  const std::int64_t n = instance_.buffers.count();
  return n + n * n / 1000;
}

// Work that is shared out: `work(i)` for each i below `count`, on all threads.
void Portfolio::share_out(std::size_t count, const std::function<void(std::size_t)>& work) const {
  std::atomic<std::size_t> next{0};
  const auto run = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> others;
  for (unsigned t = 1; t < threads_ && t < count; ++t) others.emplace_back(run);
  run();
}

// Every part by one rule after another, on all threads.
ValleyPlan Portfolio::fill_parts(const Instance& instance) {
  PartsFill filling(instance);
  share_out(filling.count(), [&](std::size_t part) {
    filling.fill(part, kFillRules, bound_, [this] { return must_stop(); });
  });
  return std::move(filling).plan();
}

void Portfolio::take_offsets(const std::vector<std::int64_t>& offsets) {
  Solution solution;
  solution.order = order_by_offset(offsets);
  solution.offsets.reserve(offsets.size());
  for (std::size_t b = 0; b < offsets.size(); ++b) {
    solution.offsets.push_back({offsets[b]});
    solution.height = std::max(solution.height, Bytes{offsets[b] + instance_.buffers.sizes[b]});
  }
  take(std::move(solution));
}

// What solve() does with so many buffers, on all threads.
void Portfolio::plan_large() {
  if (!options_.is_single_level) {
    const auto offsets = plan_by_levels(
        instance_, [this](const Instance& whole) { return fill_parts(whole).offsets; });
    if (offsets) take_offsets(*offsets);
    if (offsets && (is_over() || must_stop())) return;
  }
  take_offsets(fill_parts(instance_).offsets);
}

// The greedy orders and a little improvement; for problems too large for more, all there is.
void Portfolio::first_plan() {
  best_.height = {std::numeric_limits<std::int64_t>::max()};
  if (is_large_) return plan_large();
  // One to begin with, before solve() tries all it has.
  if (!is_exact_) {
    const FillRule rule = kFillRules.front();
    const ValleyPlan plan = ebbtide::fill_parts(instance_, {&rule, 1}, bound_, {});
    if (plan.is_packed) take_offsets(plan.offsets);
    if (is_over()) return;
  }
  SolveOptions options;
  options.seed = options_.seed;
  options.is_single_level = options_.is_single_level;
  options.improvement_steps =
      is_exact_ ? 0 : std::max(SolveOptions{}.improvement_steps, 20 * pass_cost());
  options.should_stop = [this] { return must_stop(); };
  take(solve(instance_, options));
}

Solution Portfolio::run() {
  first_plan();
  if (is_large_) return std::move(best_);
  for (std::uint64_t round = 0; !is_over() && !must_stop(); ++round) run_round(round);
  return std::move(best_);
}

void Portfolio::run_round(std::uint64_t round) {
  std::vector<Finding> findings(threads_);
  {
    std::vector<std::jthread> others;
    for (unsigned t = 1; t < threads_; ++t) {
      others.emplace_back([&, t] { findings[t] = attempt(round * threads_ + t, t); });
    }
    findings[0] = attempt(round * threads_, 0);
  }
  for (Finding& finding : findings) {
    if (finding.impossible >= 0) raise_bound(round_up_to_step(finding.impossible + 1));
    if (finding.solution) take(std::move(*finding.solution));
  }
}

Portfolio::Finding Portfolio::attempt(std::uint64_t number, unsigned thread) {
  const bool is_local = !is_exact_ || number % kLocalEvery == kLocalEvery - 1;
  Finding finding = is_local ? search_locally(number) : search_exactly(number, thread);
  const std::int64_t enough =
      options_.capacity ? std::max(bound_, options_.capacity->value) : bound_;
  if (finding.solution && finding.solution->height.value <= enough) {
    std::uint64_t first = ended_by_;
    while (number < first && !ended_by_.compare_exchange_weak(first, number)) {
    }
  }
  return finding;
}

// The height that an attempt asks for. With a capacity, that; without, the bound at first, then one
// step below the best plan and ever deeper, in turn: the difficulty does not grow evenly.
std::int64_t Portfolio::capacity_of(std::uint64_t number) const {
  if (options_.capacity) return options_.capacity->value / step_ * step_;
  if (number < kAtTheBound) return bound_;
  constexpr std::array kDepths{0.0, 0.15, 0.3, 0.45, 0.0, 0.15, 0.3, 1.0};
  const std::int64_t below = best_.height.value - step_;
  const auto dive = static_cast<std::int64_t>(static_cast<double>(below - bound_) *
                                              kDepths[(number / 7) % kDepths.size()]);
  return std::max(bound_, (below - dive) / step_ * step_);
}

Portfolio::Finding Portfolio::search_exactly(std::uint64_t number, unsigned thread) {
  auto& search = searches_[thread];
  if (!search) search = std::make_unique<ExactSearch>(instance_.buffers, instance_.sections);
  constexpr std::array kValleys{ValleyRule::kTightest, ValleyRule::kConflicts, ValleyRule::kLowest};
  constexpr std::array kNoise{0.0, 0.1, 0.4, 1.0};
  SearchOptions options;
  options.seed = options_.seed * 0x9e3779b97f4a7c15ULL + number;
  options.preference = static_cast<Preference>(number % 4);
  options.valley_rule = kValleys[number / 4 % kValleys.size()];
  options.noise = kNoise[number < kValleys.size() * 4 ? 0 : 1 + number / 12 % 3];
  // A little more than a plan needs without a single dead end: luck is cheap to try again.
  const std::int64_t nodes =
      std::max<std::int64_t>(200, std::int64_t{instance_.buffers.count()} * 9 / 8);
  options.nodes = nodes * luby(number + 1) + static_cast<std::int64_t>(number);
  options.should_stop = [this, number] { return ended_by_ < number || must_stop(); };
  const std::int64_t capacity = capacity_of(number);
  Finding finding;
  switch (search->run(capacity, options)) {
    case SearchOutcome::kFound:
      finding.solution = solution_of(search->offsets());
      break;
    case SearchOutcome::kImpossible:
      finding.impossible = capacity;
      break;
    case SearchOutcome::kSpent:
      break;
  }
  return finding;
}

// Longer each time, until the limit.
Portfolio::Finding Portfolio::search_locally(std::uint64_t number) {
  SolveOptions options;
  options.seed = options_.seed + number;
  options.is_single_level = true;  // the first plan had it
  options.should_stop = [this, number] { return ended_by_ < number || must_stop(); };
  options.warm_orders.push_back(best_.order);
  const auto round =
      static_cast<std::int64_t>(is_exact_ ? number / kLocalEvery : number / threads_);
  options.improvement_steps =
      std::max(kLocalSteps, 20 * pass_cost()) * (1 + std::min<std::int64_t>(round, 1000));
  Finding finding;
  finding.solution = solve(instance_, options);
  return finding;
}

Solution Portfolio::solution_of(const std::vector<std::int64_t>& offsets) const {
  return place(instance_.buffers, order_by_offset(offsets));
}

}  // namespace ebbtide
