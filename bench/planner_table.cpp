// solve_anytime() beside the best known heights and, where its binary is given, beside
// google/minimalloc in the same run.
//   planner_table [--time-limit=S] [--threads=N] [--minimalloc=PATH] [--minimalloc-limit=S]
//                 [--known=planner_known.csv] [--buffers=N] [--layers] file.csv...
// --buffers adds two generated problems of about N buffers: micro-batches of random lengths of a
// 100-layer model. --layers adds what looking for repeated layers gains on generated iterations:
// each row again without. `best s` is when the last improvement came, `all s` when the search
// ended, `cpu s` what all threads took. minimalloc gets the capacity that the plan reached, or its
// own 1048576 for *.1048576.csv; `there s` is when our plan was as low as that, and what the last
// line sums up.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "allocator/plan/anytime.h"
#include "allocator/plan/lower_bound.h"
#include "allocator/plan/problem_csv.h"
#include "allocator/plan/validator.h"
#include "tests/fakes/training_problem.h"

namespace {

using ebbtide::Bytes;
using ebbtide::Problem;

struct Known {
  double ratio;
  std::string source;
};

struct Settings {
  ebbtide::AnytimeOptions options;
  std::string minimalloc;
  double minimalloc_limit = 60;
  std::map<std::string, Known> known;
  std::int64_t buffers = 0;
  bool has_layers = false;
  std::vector<std::string> files;
};

// Seconds of all threads of the process.
double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// name,ratio,source
std::map<std::string, Known> read_known(const std::string& path) {
  std::map<std::string, Known> known;
  std::ifstream file(path);
  if (!file) std::fprintf(stderr, "%s: cannot be opened\n", path.c_str());
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    const std::size_t first = line.find(',');
    const std::size_t second = line.find(',', first + 1);
    if (second == std::string::npos) continue;
    known[line.substr(0, first)] = {std::atof(line.c_str() + first + 1), line.substr(second + 1)};
  }
  return known;
}

// Seconds, or nothing when it fails or takes longer than the limit.
std::optional<double> time_minimalloc(const Settings& settings, const std::string& path,
                                      Bytes capacity) {
  const std::string command = "timeout " + std::to_string(settings.minimalloc_limit) + " '" +
                              settings.minimalloc +
                              "' --capacity=" + std::to_string(capacity.value) + " --input='" +
                              path + "' --output=/dev/null >/dev/null 2>&1";
  const double begin = now();
  if (std::system(command.c_str()) != 0) return std::nullopt;
  return now() - begin;
}

// Of a plan, and of the peer where it was asked and found one.
struct Row {
  bool valid = false;
  Bytes height;
  double best_seconds = 0;
};

Row report(const std::string& name, const Problem& problem, const Settings& settings) {
  ebbtide::AnytimeOptions options = settings.options;
  Row row;
  options.on_progress = [&, height = Bytes{-1}](const ebbtide::PlanProgress& progress) mutable {
    if (progress.height != height) row.best_seconds = progress.seconds;
    height = progress.height;
  };
  const double before = cpu_seconds();
  const auto solved = ebbtide::solve_anytime(problem, options);
  const double cpu = cpu_seconds() - before;
  if (!solved.ok()) {
    std::printf("%s: %s\n", name.c_str(), solved.error().message.c_str());
    return row;
  }
  const ebbtide::AnytimePlan& plan = solved.value();
  const auto valid = ebbtide::validate(problem, plan.solution);
  row.valid = valid.ok();
  row.height = plan.solution.height;
  const double load = static_cast<double>(ebbtide::max_load(problem).value);
  const auto known = settings.known.find(name);
  const std::string best =
      known == settings.known.end() ? "-" : std::to_string(known->second.ratio);
  std::printf("%-34s %8zu %10.6f %10s %10.4f %10.4f %10.4f  %s", name.c_str(),
              problem.buffers.size(), static_cast<double>(row.height.value) / load, best.c_str(),
              row.best_seconds, plan.seconds, cpu,
              plan.status == ebbtide::PlanStatus::kOptimal ? "optimal" : "feasible");
  if (!row.valid) std::printf(" INVALID: %s", valid.error().message.c_str());
  return row;
}

// With repeated layers planned once, and without.
bool report_twice(const std::string& name, const Problem& problem, Settings settings) {
  bool ok = report(name, problem, settings).valid;
  std::printf("\n");
  if (!settings.has_layers) return ok;
  settings.options.is_single_level = true;
  ok &= report("  one level", problem, settings).valid;
  std::printf("\n");
  std::fflush(stdout);
  return ok;
}

bool report_file(const std::string& path, const Settings& settings, double& ours, double& theirs) {
  const auto read = ebbtide::read_problem_csv(path);
  if (!read.ok()) {
    std::printf("%s\n", read.error().message.c_str());
    return false;
  }
  const std::string file = path.substr(path.find_last_of('/') + 1);
  const bool is_challenging = file.find(".1048576.") != std::string::npos;
  std::optional<Bytes> capacity;
  if (is_challenging) capacity = Bytes{1048576};
  const Row row = report(file.substr(0, file.find('.')), read.value().problem, settings);
  if (!settings.minimalloc.empty() && row.valid) {
    const Bytes asked = capacity.value_or(row.height);
    const auto peer = time_minimalloc(settings, path, asked);
    ebbtide::AnytimeOptions options = settings.options;
    options.capacity = asked;
    const auto same = ebbtide::solve_anytime(read.value().problem, options);
    const double there = same.value().seconds;
    if (peer) {
      std::printf("  there %.4f s, minimalloc %.3f s", there, *peer);
      ours += there;
      theirs += *peer;
    } else {
      std::printf("  minimalloc: none in %.0f s", settings.minimalloc_limit);
    }
  }
  std::printf("\n");
  std::fflush(stdout);
  return row.valid;
}

// Micro-batches of random lengths of a 100-layer model, one after another. Gradients wrap within
// each; or they are accumulated: those of the first live to the end and through its forward, those
// of the others for a moment, and no moment is free of buffers.
Problem long_training(std::int64_t buffers, bool is_accumulating) {
  constexpr std::int64_t kMoment = 8;
  std::mt19937_64 random(7);
  Problem all;
  std::vector<std::size_t> gradients;  // of the first, that are accumulated
  std::int64_t begin = 0;
  while (static_cast<std::int64_t>(all.buffers.size()) < buffers) {
    const auto tokens = static_cast<std::int64_t>(1024 + random() % 7168);
    const Problem one = ebbtide::fakes::training_problem({.layers = 100, .tokens = tokens});
    std::int64_t end = begin;
    for (ebbtide::Buffer buffer : one.buffers) {
      const bool is_gradient = buffer.live.size() > 1;
      ebbtide::LiveRanges moved;
      for (const ebbtide::Interval& i : buffer.live) {
        moved.push_back({i.birth + begin, i.death + begin});
        end = std::max(end, i.death.value + begin);
      }
      if (is_gradient && is_accumulating) {
        if (begin == 0) {
          gradients.push_back(all.buffers.size());
        } else {
          moved = {{moved.back().birth, moved.back().birth + kMoment}};
        }
      }
      buffer.live = moved;
      all.buffers.push_back(std::move(buffer));
    }
    begin = end;
  }
  for (const std::size_t i : gradients) {
    ebbtide::LiveRanges& live = all.buffers[i].live;
    live = {live.front(), {live.back().birth, ebbtide::Tick{begin + kMoment}}};
  }
  return all;
}

bool read_arguments(int count, char** arguments, Settings& settings) {
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const auto value = [&](const std::string& option) -> const char* {
      return argument.rfind(option, 0) == 0 ? arguments[i] + option.size() : nullptr;
    };
    if (const char* limit = value("--time-limit=")) {
      settings.options.time_limit = std::atof(limit);
    } else if (const char* threads = value("--threads=")) {
      settings.options.threads = static_cast<unsigned>(std::atoi(threads));
    } else if (const char* seed = value("--seed=")) {
      settings.options.seed = static_cast<std::uint64_t>(std::atoll(seed));
    } else if (const char* binary = value("--minimalloc=")) {
      settings.minimalloc = binary;
    } else if (const char* peer_limit = value("--minimalloc-limit=")) {
      settings.minimalloc_limit = std::atof(peer_limit);
    } else if (const char* known = value("--known=")) {
      settings.known = read_known(known);
    } else if (const char* buffers = value("--buffers=")) {
      settings.buffers = std::atoll(buffers);
    } else if (argument == "--layers") {
      settings.has_layers = true;
    } else if (argument.rfind("--", 0) == 0) {
      std::fprintf(stderr, "unknown option %s\n", argument.c_str());
      return false;
    } else {
      settings.files.push_back(argument);
    }
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  Settings settings;
  if (!read_arguments(count, arguments, settings)) return 2;
  std::printf("%-34s %8s %10s %10s %10s %10s %10s\n", "problem", "buffers", "height/LB",
              "best known", "best s", "all s", "cpu s");
  bool ok = true;
  double ours = 0;
  double theirs = 0;
  for (const std::string& file : settings.files) ok &= report_file(file, settings, ours, theirs);
  if (theirs > 0) {
    std::printf("where both are there: %.3f s, minimalloc %.3f s\n", ours, theirs);
  }
  for (const bool checkpointing : {false, true}) {
    const Problem problem = ebbtide::fakes::training_problem({.checkpointing = checkpointing});
    ok &= report_twice(checkpointing ? "32-layer iteration, checkpointed" : "32-layer iteration",
                       problem, settings);
  }
  if (settings.has_layers) {
    const Problem problem =
        ebbtide::fakes::training_problem({.layers = 100, .checkpointing = true});
    ok &= report_twice("100-layer iteration, checkpointed", problem, settings);
  }
  if (settings.buffers > 0) {
    for (const bool is_accumulating : {false, true}) {
      ok &=
          report_twice(is_accumulating ? "100 layers, accumulating" : "100 layers, random lengths",
                       long_training(settings.buffers, is_accumulating), settings);
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    std::printf("peak of the process %.0f MiB\n", static_cast<double>(usage.ru_maxrss) / 1024);
  }
  return ok ? 0 : 1;
}
