// The planner's figures: height beside lower bound, and time, for CSV files given as arguments and
// for generated training iterations. Usage: planner_bench [--budget-ms=N] [--effort=STEPS]
// file.csv...
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "allocator/plan/compact.h"
#include "allocator/plan/instance.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/orders.h"
#include "allocator/plan/problem_csv.h"
#include "allocator/plan/solver.h"
#include "allocator/plan/validator.h"
#include "tests/fakes/training_problem.h"

namespace {

using ebbtide::Problem;
using ebbtide::Solution;
using ebbtide::SolveOptions;

struct Settings {
  double budget_ms = 1e9;
  std::int64_t effort = SolveOptions{}.improvement_steps;
};

double now_ms() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(time).count();
}

double ratio(ebbtide::Bytes height, ebbtide::Bytes bound) {
  return static_cast<double>(height.value) / static_cast<double>(bound.value);
}

std::vector<std::uint32_t> by_size(const Problem& problem) {
  const ebbtide::Instance instance(problem);
  return ebbtide::GreedyOrders(instance.buffers, instance.sections).make(ebbtide::OrderRule::kSize);
}

// The fastest of several runs: the least disturbed one.
double place_ms(const Problem& problem, const Solution& solution) {
  double best = 1e9;
  for (int i = 0; i < 9; ++i) {
    const double begin = now_ms();
    const Solution again = ebbtide::place(problem, solution.order);
    best = std::min(best, now_ms() - begin);
    if (again.offsets != solution.offsets) std::printf("place() differs from solve()\n");
  }
  return best;
}

bool report(const std::string& name, const Problem& problem, SolveOptions options,
            const Settings& settings) {
  options.improvement_steps = settings.effort;
  const double begin = now_ms();
  options.should_stop = [&] { return now_ms() - begin > settings.budget_ms; };
  const auto solved = ebbtide::solve(problem, options);
  const double solve_ms = now_ms() - begin;
  if (!solved.ok()) {
    std::printf("%s: %s\n", name.c_str(), solved.error().message.c_str());
    return false;
  }
  const Solution& solution = solved.value();
  const double validate_begin = now_ms();
  const auto valid = ebbtide::validate(problem, solution);
  const double validate_ms = now_ms() - validate_begin;
  const ebbtide::Bytes bound = ebbtide::max_load(problem);
  const Solution plain = ebbtide::place(problem, by_size(problem));
  std::printf("%-34s %7zu %20lld %9.5f %9.5f %9.2f %9.3f %9.2f  %s\n", name.c_str(),
              problem.buffers.size(), static_cast<long long>(bound.value),
              ratio(solution.height, bound), ratio(plain.height, bound), solve_ms,
              place_ms(problem, solution), validate_ms,
              valid.ok() ? "valid" : valid.error().message.c_str());
  return valid.ok();
}

// The buffers that wrap around: an iteration's residents.
std::vector<std::uint32_t> residents(const Problem& problem) {
  std::vector<std::uint32_t> first;
  for (const std::uint32_t i : by_size(problem)) {
    if (problem.buffers[i].live.size() > 1) first.push_back(i);
  }
  return first;
}

bool report_training(const Settings& settings) {
  bool ok = true;
  for (const int layers : {8, 32, 64}) {
    for (const bool checkpointing : {false, true}) {
      const Problem problem =
          ebbtide::fakes::training_problem({.layers = layers, .checkpointing = checkpointing});
      const std::string name = "training, " + std::to_string(layers) + " layers" +
                               (checkpointing ? ", checkpointed" : "");
      ok &= report(name, problem, {}, settings);
      SolveOptions constrained;
      constrained.first = residents(problem);
      ok &= report("  with residents first", problem, constrained, settings);
    }
  }
  return ok;
}

bool report_file(const std::string& path, const Settings& settings) {
  const auto read = ebbtide::read_problem_csv(path);
  if (!read.ok()) {
    std::printf("%s\n", read.error().message.c_str());
    return false;
  }
  const std::string name = path.substr(path.find_last_of('/') + 1);
  return report(name, read.value().problem, {}, settings);
}

}  // namespace

int main(int count, char** arguments) {
  Settings settings;
  bool ok = true;
  std::printf("%-34s %7s %20s %9s %9s %9s %9s %9s\n", "problem", "buffers", "max load (B)",
              "height/LB", "size-desc", "solve ms", "place ms", "check ms");
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument.rfind("--budget-ms=", 0) == 0) {
      settings.budget_ms = std::atof(argument.c_str() + 12);
    } else if (argument.rfind("--effort=", 0) == 0) {
      settings.effort = std::atoll(argument.c_str() + 9);
    } else {
      ok &= report_file(argument, settings);
    }
  }
  ok &= report_training(settings);
  return ok ? 0 : 1;
}
