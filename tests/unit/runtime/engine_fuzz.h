// Random programs of engine calls as printable instructions: what fails can be pasted into a test.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/runtime/simulated_adaptor.h"

namespace ebbtide::simulation {

enum class Op : std::uint8_t {
  kAllocate,     // a: size class, b: stream
  kFree,         // a: which live tensor, counted from the newest
  kUse,          // a: which live tensor, b: stream
  kMark,         // a: MarkKind, b: source
  kBackward,     // a: 1 begins, 0 ends it
  kReleaseIdle,
  kReleaseInside,  // a: in units of 1 MiB
  kSettle,
  kSnapshot,
  kCapacity,     // a: in units of 16 MiB; what the device has left for the arena
  kThrow,        // what was allocated since the last mark goes, the newest first, as when a stack unwinds
  kFreeElsewhere,  // a: which live tensor; another thread frees it
};
inline constexpr std::array<const char*, 12> kOpNames{"kAllocate", "kFree",   "kUse",      "kMark",    "kBackward",
                                                     "kReleaseIdle", "kReleaseInside", "kSettle", "kSnapshot", "kCapacity", "kThrow", "kFreeElsewhere"};

struct Instruction {
  Op op = Op::kSnapshot;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
};
using Program = std::vector<Instruction>;

// As source text: {Op::kAllocate, 3, 0}, ...
inline void print(std::ostream& out, const Program& program) {
  for (std::size_t i = 0; i < program.size(); ++i) {
    const Instruction& step = program[i];
    out << "{Op::" << kOpNames[static_cast<std::size_t>(step.op)] << ", " << step.a << ", " << step.b << "},"
        << (i % 4 == 3 ? "\n" : " ");
  }
  out << "\n";
}

// Sizes of a few tensors, too small ones and odd ones included; `length` scales most of them.
inline Bytes size_of(std::uint32_t size_class, std::uint32_t length) {
  constexpr std::array<std::int64_t, 8> kSizes{4096, 5000, 65536, 100001, 1 << 20, 3 << 20, 10 << 20, 700};
  const std::int64_t size = kSizes[size_class % kSizes.size()];
  return {size_class % 3 == 0 ? size : size * (1 + static_cast<std::int64_t>(length % 5))};
}

// Plans need not be good here: what is tried is the serving.
inline SimulatedAdaptor::Options quick_planning() {
  SimulatedAdaptor::Options options = SimulatedAdaptor::defaults();
  options.engine.planning_time = std::chrono::milliseconds(0);
  options.engine.inline_planning_steps = 1'000;
  return options;
}

inline constexpr std::size_t kMostLive = 128;  // beyond it the oldest tensor goes

// Runs a program; the first fault in words, or nothing. The live tensors are freed at its end.
inline std::optional<std::string> fault_of(const Program& program, SimulatedAdaptor& adaptor) {
  std::vector<TensorId> live;
  std::uint32_t length = 0;
  std::size_t index = 0;
  std::size_t since_mark = 0;  // of `live`
  const auto nth = [&](std::uint32_t a) { return live.size() - 1 - a % live.size(); };
  const auto step_through = [&](const Instruction& step) {
    switch (step.op) {
      case Op::kAllocate:
        live.push_back(adaptor.allocate(size_of(step.a, length), StreamId{step.b}));
        if (live.size() <= kMostLive) break;
        adaptor.free(live.front());
        live.erase(live.begin());
        since_mark -= since_mark > 0 ? 1 : 0;
        break;
      case Op::kFree:
      case Op::kFreeElsewhere: {
        if (live.empty()) break;
        const std::size_t freed = nth(step.a);
        if (step.op == Op::kFree) {
          adaptor.free(live[freed]);
        } else {
          std::thread([&] { adaptor.free(live[freed]); }).join();
        }
        live.erase(live.begin() + static_cast<std::ptrdiff_t>(freed));
        since_mark -= freed < since_mark ? 1 : 0;
        break;
      }
      case Op::kThrow:
        for (; live.size() > since_mark; live.pop_back()) adaptor.free(live.back());
        in_backward = false;
        break;
      case Op::kUse:
        if (!live.empty()) adaptor.use_on(live[nth(step.a)], StreamId{step.b});
        break;
      case Op::kMark:
        if (step.b > 0) length = step.b - 1;
        since_mark = live.size();
        adaptor.engine().mark(static_cast<MarkKind>(step.a % 5), step.a / 5);
        break;
      case Op::kBackward: in_backward = step.a != 0; break;
      case Op::kReleaseIdle: static_cast<void>(adaptor.engine().release_idle()); break;
      case Op::kReleaseInside: static_cast<void>(adaptor.engine().release_inside(Bytes{step.a * kMiB.value})); break;
      case Op::kSettle: adaptor.engine().settle(); break;
      case Op::kSnapshot: adaptor.check_books(); break;
      case Op::kCapacity: adaptor.range().set_capacity(Bytes{16 * step.a * kMiB.value}); break;
    }
  };
  for (; index < program.size() && !adaptor.first_fault(); ++index) step_through(program[index]);
  in_backward = false;
  if (!adaptor.first_fault()) {
    for (const TensorId tensor : live) adaptor.free(tensor);
    adaptor.check_books();
  }
  if (!adaptor.first_fault()) return std::nullopt;
  return *adaptor.first_fault() + ", at instruction " + std::to_string(index);
}

// How much of a program is no repetition: one round in so many.
struct Disorder {
  std::uint32_t noisy = 4;      // has requests, frees, marks and exceptions that others do not have, and lacks some
  std::uint32_t eventful = 64;  // is followed by something rare: memory given back, another capacity
  std::uint32_t checked = 1;    // is followed by a look at the books
  std::uint32_t reshaped = 1;   // has tensors of another length than the one before
};
// Nearly everything is learnt soon, so that plans serve and millions of instructions take seconds.
inline constexpr Disorder kSteady{4096, 1024, 16, 128};

// A round that repeats, with everything that real programs do to break the repetition.
class ProgramWriter {
 public:
  explicit ProgramWriter(std::uint64_t seed, Disorder disorder = {}) : random_(seed), disorder_(disorder) {
    for (Program& round : rounds_) write_round(round);
  }

  Program write(std::size_t count) {
    Program program;
    while (program.size() < count) {
      const std::uint32_t kind = below(static_cast<std::uint32_t>(rounds_.size()));
      constexpr std::array<MarkKind, 4> kMarks{MarkKind::kForward, MarkKind::kOptimizer, MarkKind::kInference,
                                               MarkKind::kUser};
      const std::uint32_t mark = static_cast<std::uint32_t>(kMarks[kind % kMarks.size()]) + 5 * kind;
      program.push_back({Op::kMark, mark, kind == 0 && below(disorder_.reshaped) == 0 ? 1 + below(5) : 0});
      const std::uint32_t noise = below(disorder_.noisy) == 0 ? 1 + below(20) : 0;  // percent
      for (const Instruction& step : rounds_[kind]) {
        if (below(100) >= noise || below(2) == 0) program.push_back(step);
        if (below(100) < noise) program.push_back(any());
        if (below(32) == 0) add_aside(program);
      }
      if (noise > 0) program.push_back({Op::kBackward, 0, 0});
      if (below(3) == 0) program.push_back({Op::kMark, static_cast<std::uint32_t>(MarkKind::kOptimizerEnd), 0});
      if (below(disorder_.eventful) == 0) program.push_back(rare());
      if (below(disorder_.checked) == 0) program.push_back({Op::kSnapshot, 0, 0});
    }
    return program;
  }

 private:
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }

  void write_round(Program& round) {
    const std::uint32_t count = 8 + below(60);
    std::uint32_t live = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      const bool frees = live > 0 && below(100) < 48;
      round.push_back(frees ? Instruction{Op::kFree, below(live), 0} : Instruction{Op::kAllocate, below(8), 0});
      live = frees ? live - 1 : live + 1;
    }
    // Most of what is left goes; a little outlives the round.
    for (; live > below(3); --live) round.push_back({Op::kFree, below(live), 0});
  }

  // What plans need not know of: other streams' tensors, and uses by other streams.
  void add_aside(Program& program) {
    if (below(2) == 0) {
      program.push_back({Op::kUse, below(16), below(3)});
      return;
    }
    program.push_back({Op::kAllocate, below(8), 1 + below(2)});
    program.push_back({Op::kFree, 0, 0});
  }

  Instruction any() {
    switch (below(13)) {
      case 12: return {Op::kThrow, 0, 0};
      case 0: return {Op::kUse, below(16), below(3)};
      case 1: return {Op::kAllocate, below(8), 1 + below(2)};
      case 2: return {Op::kBackward, below(2), 0};
      case 3: return {Op::kMark, below(20), below(6)};
      case 4:
      case 5:
      case 6:
      case 7: return {Op::kFree, below(64), 0};
      default: return {Op::kAllocate, below(8), 0};
    }
  }

  Instruction rare() {
    switch (below(6)) {
      case 5: return {Op::kReleaseInside, 1 + below(8), 0};
      case 4: return {Op::kFreeElsewhere, below(16), 0};
      case 0: return {Op::kReleaseIdle, 0, 0};
      case 1: return {Op::kSettle, 0, 0};
      case 2: return {Op::kCapacity, 1 + below(8), 0};
      default: return {Op::kCapacity, 1 << 20, 0};
    }
  }

  std::mt19937_64 random_;
  Disorder disorder_;
  std::array<Program, 5> rounds_;
};

// The shortest program found in that time that still fails: stretches are left out as long as it does.
inline Program shortened(Program program, std::chrono::seconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  const auto has_time = [end] { return std::chrono::steady_clock::now() < end; };
  for (std::size_t stretch = program.size() / 2; stretch > 0 && has_time(); stretch /= 2) {
    for (std::size_t begin = 0; begin + stretch <= program.size() && has_time();) {
      Program without = program;
      const auto from = without.begin() + static_cast<std::ptrdiff_t>(begin);
      without.erase(from, from + static_cast<std::ptrdiff_t>(stretch));
      SimulatedAdaptor adaptor(quick_planning());
      if (fault_of(without, adaptor)) {
        program = std::move(without);
      } else {
        begin += stretch;
      }
    }
  }
  return program;
}

}  // namespace ebbtide::simulation
