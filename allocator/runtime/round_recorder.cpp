#include "allocator/runtime/round_recorder.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ebbtide {

void RoundRecorder::withdraw(const Origin& request) {
  if (request.round != round_.serial || request.request >= round_.requests.size()) return;
  Request& withdrawn = round_.requests[request.request];
  withdrawn.death = Tick{request.request};
  live_bytes_ -= withdrawn.size;
  withdrawn_.push_back(request.request);
  peak_bytes_ = measured_peak();
}

Bytes RoundRecorder::measured_peak() const {
  std::vector<Bytes> freed(round_.requests.size() + 1);  // by the number of requests until then
  for (const Request& request : round_.requests) {
    if (request.death != kAlive) freed[static_cast<std::size_t>(request.death.value)] += request.size;
  }
  Bytes live;
  Bytes peak;
  for (std::size_t r = 0; r < round_.requests.size(); ++r) {
    live += round_.requests[r].size;
    live -= freed[r];
    peak = std::max(peak, live);
  }
  return peak;
}

void RoundRecorder::leave_out_withdrawn(BlockTable& arena, UpstreamBlocks& upstream) {
  std::sort(withdrawn_.begin(), withdrawn_.end());
  const auto fewer = [this](std::int64_t number) {
    const auto before = std::lower_bound(withdrawn_.begin(), withdrawn_.end(), number);
    return number - (before - withdrawn_.begin());
  };
  const auto move_down = [&fewer](Tick& tick) {
    if (tick != kAlive) tick = Tick{fewer(tick.value)};
  };
  std::vector<Request> kept;
  for (std::uint32_t r = 0; r < round_.requests.size(); ++r) {
    if (std::binary_search(withdrawn_.begin(), withdrawn_.end(), r)) continue;
    kept.push_back(round_.requests[r]);
    move_down(kept.back().death);
  }
  round_.requests = std::move(kept);
  for (Survivor& survivor : round_.survivors) move_down(survivor.end);
  move_down(round_.optimizer_end);
  move_down(round_.backward_begin);
  const auto rename = [this, &fewer](BlockRecord& block) {
    if (block.origin.round == round_.serial) block.origin.request = static_cast<std::uint32_t>(fewer(block.origin.request));
  };
  for (auto& [offset, block] : arena) rename(block);
  upstream.for_each([&rename](const void*, UpstreamBlock& block) { rename(block); });
  withdrawn_.clear();
}

// What stays for ever matters only where it lies in the arena: plans must go round it. There it is no resident, so it has
// no root: a program's residents would never be those alive, and every round would be learnt.
void RoundRecorder::add_survivor(BlockRecord& block, std::optional<Offset> in_arena, const ProgramBook& book) {
  block.survivor = -1;
  if (block.origin.round == 0) return;
  if (block.root == RootId{}) block.root = book.root_of(block.origin);
  const bool is_permanent = book.is_permanent(block.root);
  if (!in_arena && is_permanent) return;
  block.survivor = static_cast<std::int32_t>(round_.survivors.size());
  const RootId root = is_permanent ? RootId{} : block.root;
  round_.survivors.push_back({block.origin, root, block.size, kAlive, in_arena.has_value(), in_arena.value_or(Offset{})});
}

Round RoundRecorder::next(RoundKind kind, std::uint32_t source, BlockTable& arena,
                          UpstreamBlocks& upstream, const ProgramBook& book) {
  if (is_prologue()) {
    upstream.for_each([this](const void*, const UpstreamBlock& block) { constant_sizes_.push_back(block.size); });
    std::sort(constant_sizes_.begin(), constant_sizes_.end());
    const auto last = std::unique(constant_sizes_.begin(), constant_sizes_.end());
    constant_sizes_.erase(last, constant_sizes_.end());
  }
  if (!withdrawn_.empty()) leave_out_withdrawn(arena, upstream);
  Round finished = std::exchange(round_, Round{});
  finished.constant_sizes = constant_sizes_;
  round_.serial = finished.serial + 1;
  round_.kind = kind;
  round_.previous = finished.kind;
  round_.source = source;
  round_.requests.reserve(finished.requests.size());
  find_survivors(arena, upstream, book);
  if (finished.kind == RoundKind::kOptimizer) {
    const auto is_new = [&finished](const Survivor& one) { return one.in_arena && one.root == RootId{} && one.origin.round == finished.serial; };
    std::copy_if(round_.survivors.begin(), round_.survivors.end(), std::back_inserter(finished.left), is_new);
  }
  live_bytes_ = Bytes{};
  peak_bytes_ = Bytes{};
  return finished;
}

void RoundRecorder::forget_roots(BlockTable& arena) const {
  for (auto& [offset, block] : arena) {
    if (block.origin.round == round_.serial) block.root = RootId{};
  }
}

void RoundRecorder::resolve(const ProgramBook& book, BlockTable& arena) {
  for (auto& [offset, block] : arena) {
    if (block.root == RootId{} && block.origin.round != 0) block.root = book.root_of(block.origin);
  }
  for (Survivor& survivor : round_.survivors) {
    if (survivor.root == RootId{}) survivor.root = book.root_of(survivor.origin);
    if (book.is_permanent(survivor.root)) survivor.root = RootId{};
  }
}

void RoundRecorder::find_survivors(BlockTable& arena, UpstreamBlocks& upstream, const ProgramBook& book) {
  round_.survivors.clear();
  for (auto& [offset, block] : arena) add_survivor(block, offset, book);
  upstream.for_each([&](const void*, UpstreamBlock& block) { add_survivor(block, std::nullopt, book); });
}

void RoundRecorder::begin_again(RoundKind kind, std::uint32_t source, BlockTable& arena,
                                UpstreamBlocks& upstream, const ProgramBook& book) {
  if (round_.kind != RoundKind::kUnmarked && round_.kind != kind) round_.previous = round_.kind;
  round_.kind = kind;
  round_.source = source;
  round_.optimizer_end = round_.backward_begin = kAlive;
  find_survivors(arena, upstream, book);
}

std::vector<ProgramBook::Resident> RoundRecorder::residents() const {
  std::vector<ProgramBook::Resident> residents;
  for (const Survivor& survivor : round_.survivors) {
    if (survivor.root != RootId{}) residents.push_back({survivor.root, survivor.size});
  }
  std::sort(residents.begin(), residents.end(),
            [](const auto& a, const auto& b) { return a.root < b.root; });
  const auto same = [](const auto& a, const auto& b) { return a.root == b.root; };
  residents.erase(std::unique(residents.begin(), residents.end(), same), residents.end());
  return residents;
}

Bytes RoundRecorder::live_beyond_gradients() const {
  Bytes sum;
  for (const Request& request : round_.requests) {
    if (request.death == kAlive && !is_constant_size(request.size)) sum += request.size;
  }
  return sum;
}

}  // namespace ebbtide
