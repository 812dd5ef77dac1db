#include "allocator/runtime/inline_plan.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "allocator/plan/lower_bound.h"
#include "allocator/plan/problem.h"
#include "allocator/plan/solver.h"

namespace ebbtide {
namespace {

constexpr double kGoodEnoughNow = 1.002;
constexpr double kPriceOfGrowingLate = 1.001;
constexpr std::int64_t kLargePart = 64;   // of the height
constexpr std::int64_t kPassingPart = 8;  // of a round: tensors of one layer or two
constexpr double kPriceOfHomesNow = 1.05;  // height accepted for leaving residents where other programs look for them

Tick clipped(Tick tick, std::size_t nodes) {
  return Tick{std::min(tick.value, static_cast<std::int64_t>(nodes) + 1)};
}

// When a live block will be gone, as far as the program knows: what should be gone by now may stay for good.
Tick end_of(const Block& block, const Program& program, Tick now) {
  const auto incoming = std::find_if(program.incoming.begin(), program.incoming.end(),
                                     [&](const Incoming& i) { return i.root == block.root; });
  if (block.survivor >= 0 && incoming != program.incoming.end()) return incoming->end;
  const auto node = std::find_if(program.nodes.begin(), program.nodes.end(),
                                 [&](const Node& n) { return n.root == block.root; });
  const bool is_known = block.survivor < 0 && block.root != RootId{} && node != program.nodes.end();
  return is_known && node->death >= now ? node->death : kAlive;
}

// True when nothing that is alive now will still be in the way when `birth` comes.
bool will_be_free(const Home& home, Tick birth, const Program& program, const Arena& arena, Tick now) {
  const Offset end = home.offset + home.size;
  for (Offset at = home.offset; at < end;) {
    const BlockTable::Entry* entry = arena.blocks().holding_entry(at, end - at);
    if (entry == nullptr) return true;
    if (end_of(entry->second, program, now) > birth) return false;
    at = entry->first + entry->second.size;
  }
  return true;
}

Buffer buffer_of(Bytes size, Tick birth, Tick death, Bytes alignment) {
  Buffer buffer;
  buffer.size = align_up(size, alignment);
  buffer.alignment = alignment;
  buffer.live.push_back({birth, std::max(death, birth + 1)});
  return buffer;
}

// What is live first, then the nodes as the last solution placed them. The solution's order counts
// residents before and squatters behind the nodes; nodes it does not name come last.
std::vector<std::uint32_t> placement_order(const ProgramBook& book, const Program& program,
                                           std::size_t buffers) {
  const std::size_t count = program.nodes.size();
  std::vector<bool> is_placed(buffers, false);
  std::vector<std::uint32_t> order;
  const auto add = [&](std::size_t index) {
    if (is_placed[index]) return;
    is_placed[index] = true;
    order.push_back(static_cast<std::uint32_t>(index));
  };
  for (std::size_t i = count; i < buffers; ++i) add(i);
  const std::size_t others = count + book.squatters.size();
  const std::size_t residents = program.order.size() - std::min(program.order.size(), others);
  for (const std::uint32_t index : program.order) {
    if (index >= residents && index - residents < count) add(index - residents);
  }
  for (std::size_t i = 0; i < count; ++i) add(i);
  return order;
}

// Kernels round: a little above the prediction costs little and saves a divergence.
Bytes slot_for(const Program& program, const Matcher& matcher, std::uint32_t index, Bytes alignment) {
  const Node& node = program.nodes[index];
  const Bytes expected = matcher.expected(index);
  if (expected.value == 0 || (program.is_rare(node) && !matcher.is_size_seen(index))) return node.slot;
  if (program.is_constant(node.size_class)) return expected;
  const Bytes roomy = align_up(Bytes{expected.value + expected.value / 512}, alignment);
  return expected <= node.slot ? std::min(roomy, node.slot) : roomy;
}

bool is_within(const Solution& solution, double factor, Bytes height) {
  return static_cast<double>(solution.height.value) <= factor * static_cast<double>(height.value);
}

// What comes and goes and is large first, then what lives longest: the forward's tensors lie one on the other as they come.
std::vector<std::uint32_t> stacked(const Problem& problem, std::size_t nodes, std::vector<std::uint32_t> order, Bytes height) {
  const Tick end{static_cast<std::int64_t>(nodes)};
  const auto duration = [&](std::uint32_t i) {
    const Interval& live = *problem.buffers[i].live.begin();
    return live.death > end ? end.value : live.death - live.birth;  // what survives the round lies lowest
  };
  const auto is_passing = [&](std::uint32_t i) {
    return problem.buffers[i].size.value > height.value / kLargePart && duration(i) < static_cast<std::int64_t>(nodes) / kPassingPart;
  };
  const auto rest = std::stable_partition(order.begin(), order.end(), is_passing);
  std::stable_sort(rest, order.end(), [&](std::uint32_t a, std::uint32_t b) { return duration(a) > duration(b); });
  return order;
}

// One pass, unless that asks for more memory than there is and a better plan would not. Homes are kept as long as
// that costs little: what this round learns moves them for the others, too. Where the arena must grow, it had better do so as
// memory is needed: what was foretold may not come. (Beside successors it has their room to keep free, and grows for them anyway.)
Solution solution_of(Problem problem, std::size_t nodes, const std::vector<std::uint32_t>& order, Bytes extent,
                     std::int64_t improvement_steps, bool has_successors) {
  Solution best = place(problem, order);
  if (best.height > extent && !has_successors) {
    Solution other = place(problem, stacked(problem, nodes, order, best.height));
    if (is_within(other, kPriceOfGrowingLate, best.height)) best = std::move(other);
  }
  const Bytes lowest = std::max(max_load(problem), extent);
  SolveOptions options;
  options.good_enough = kGoodEnoughNow;
  options.improvement_steps = improvement_steps;
  options.warm_orders.push_back(order);
  const auto improve = [&] {
    Result<Solution> better = solve(problem, options);
    if (better.ok() && better.value().height < best.height) best = std::move(better.value());
  };
  if (is_within(best, kGoodEnoughNow, lowest)) return best;
  improve();
  if (is_within(best, kPriceOfHomesNow, lowest)) return best;
  for (std::size_t i = 0; i < nodes; ++i) problem.buffers[i].fixed.reset();
  improve();
  return best;
}

// True when what is born before `tick` lies below `bottom`.
bool is_below(Offset bottom, Tick tick, const Solution& solution, const Problem& problem) {
  for (std::size_t i = 0; i < problem.buffers.size(); ++i) {
    const Buffer& buffer = problem.buffers[i];
    const bool is_early = buffer.size.value > 0 && buffer.live.begin()->birth < tick && !buffer.fixed;
    if (is_early && solution.offsets[i] + buffer.size > bottom) return false;
  }
  return true;
}

// The plan with the successors on top, if the arena must grow for it anyway.
Solution leaving_room(const Problem& problem, std::size_t nodes, const std::vector<std::uint32_t>& order,
                      const Successors& successors, Bytes alignment, Bytes extent,
                      std::int64_t improvement_steps) {
  if (!successors.nodes.empty()) {
    for (const std::int64_t part : {0, 256, 128, 64}) {
      const Bytes spare = part == 0 ? Bytes{} : align_up(Bytes{max_load(problem).value / part}, alignment);
      const Problem on_top = with_successors_on_top(problem, successors, spare);
      const Bytes top = max_load(on_top) + spare;
      if (top <= extent || !check(on_top).ok()) break;
      Solution solution = solution_of(on_top, nodes, order, extent, improvement_steps, true);
      const bool leaves_room = is_below(bottom_of(successors, on_top), successors.begin, solution, on_top);
      if (leaves_room && is_within(solution, kGoodEnoughNow, top)) return solution;
    }
  }
  return solution_of(problem, nodes, order, extent, improvement_steps, !successors.nodes.empty());
}

}  // namespace

InlinePlan make_inline_plan(const ProgramBook& book, const Program& program, const Matcher& matcher,
                            std::uint32_t current, const Arena& arena, Bytes alignment,
                            const Successors& successors, std::int64_t improvement_steps) {
  const std::size_t count = program.nodes.size();
  const Tick now{static_cast<std::int64_t>(matcher.cursor())};
  Problem problem;
  InlinePlan plan;
  plan.slots.resize(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const Node& node = program.nodes[i];
    plan.slots[i] = matcher.is_absent(i) ? Bytes{} : slot_for(program, matcher, i, alignment);
    const bool is_past = i != current && (matcher.was_matched(i) || i < matcher.cursor());
    const bool done = is_past || node.unplanned;
    Buffer buffer = buffer_of(done ? Bytes{} : plan.slots[i], Tick{i}, clipped(node.death, count), alignment);
    const auto home = book.homes.find(node.root);
    const bool has_home = !done && node.survives() && home != book.homes.end() &&
                          home->second.size >= buffer.size;
    // Other programs count on residents being there, whatever this round looks like.
    if (has_home && will_be_free(home->second, Tick{i}, program, arena, now)) buffer.fixed = home->second.offset;
    problem.buffers.push_back(std::move(buffer));
  }
  for (const auto& [offset, block] : arena.blocks()) {
    const Tick end = std::max(clipped(end_of(block, program, now), count), now + 1);
    Buffer buffer = buffer_of(block.size, Tick{0}, end, alignment);
    buffer.fixed = offset;
    problem.buffers.push_back(std::move(buffer));
  }
  const std::vector<std::uint32_t> order = placement_order(book, program, problem.buffers.size());
  const Solution solution = leaving_room(problem, count, order, successors, alignment, arena.extent(), improvement_steps);
  plan.offsets.assign(solution.offsets.begin(), solution.offsets.begin() + static_cast<std::ptrdiff_t>(count));
  plan.height = solution.height;
  return plan;
}

Bytes height_in_gaps(const Program& program, const Matcher& matcher, std::uint32_t current, const Arena& arena, Bytes alignment) {
  const std::size_t count = program.nodes.size();
  const Tick now{static_cast<std::int64_t>(matcher.cursor())};
  BlockTable table;
  std::vector<std::pair<Tick, Offset>> deaths;  // a heap, the earliest first
  const auto hold = [&](Offset offset, Bytes size, Tick death) {
    table.insert(offset, {size, {}, {}});
    deaths.emplace_back(clipped(death, count), offset);
    std::push_heap(deaths.begin(), deaths.end(), std::greater<>{});
  };
  for (const auto& [offset, block] : arena.blocks()) hold(offset, block.size, std::max(end_of(block, program, now), now + 1));
  Offset top = table.highest_end();
  for (std::uint32_t i = 0; i < count; ++i) {
    const Node& node = program.nodes[i];
    const bool is_past = i != current && (matcher.was_matched(i) || i < matcher.cursor());
    const bool is_unlikely = matcher.is_absent(i) || (program.is_rare(node) && !matcher.is_size_seen(i));
    if (is_past || node.unplanned || is_unlikely || matcher.expected(i).value == 0) continue;
    for (; !deaths.empty() && deaths.front().first <= Tick{i}; deaths.pop_back()) {
      table.erase(deaths.front().second);
      std::pop_heap(deaths.begin(), deaths.end(), std::greater<>{});
    }
    const Offset offset = table.tightest_place(matcher.expected(i), alignment);
    top = std::max(top, offset + matcher.expected(i));
    hold(offset, matcher.expected(i), node.death);
  }
  return Bytes{top.value};
}

Bytes load_without_place(const Program& program, const Matcher& matcher, std::uint32_t current, const Arena& arena,
                         const std::vector<Home>& places) {
  const Tick now{static_cast<std::int64_t>(matcher.cursor())};
  Problem problem;
  for (std::uint32_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    const bool is_past = i != current && (matcher.was_matched(i) || i < matcher.cursor());
    if (is_past || node.unplanned || matcher.is_absent(i) || matcher.expected(i).value == 0) continue;
    const Home wanted{places[i].offset, matcher.expected(i)};
    if (wanted.size <= places[i].size && will_be_free(wanted, Tick{i}, program, arena, now)) continue;
    problem.buffers.push_back(buffer_of(wanted.size, Tick{i}, clipped(node.death, program.nodes.size()), Bytes{1}));
  }
  return problem.buffers.empty() ? Bytes{} : max_load(problem);
}

}  // namespace ebbtide
