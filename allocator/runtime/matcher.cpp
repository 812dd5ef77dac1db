#include "allocator/runtime/matcher.h"

#include <algorithm>
#include <numeric>

namespace ebbtide {
namespace {

constexpr std::uint32_t kNear = 16;
constexpr std::uint32_t kFar = 96;
constexpr std::size_t kLongRun = 6;
constexpr std::int64_t kWorthPassing = 4;
constexpr std::size_t kMaxPassed = 2;  // nodes that one request alone may pass over

}  // namespace

void Matcher::begin(const Program& program, Bytes smallest, const Extents& input) {
  program_ = &program;
  count_ = static_cast<std::uint32_t>(program.nodes.size());
  cursor_ = 0;
  unmatched_.clear();
  used_.assign(program.nodes.size(), 0);
  absent_.assign(program.nodes.size(), 0);
  last_taken_.reset();
  lone_twin_.reset();
  optional_.resize(program.nodes.size());
  for (std::size_t i = 0; i < program.nodes.size(); ++i) optional_[i] = program.nodes[i].missed > 0 ? 1 : 0;
  sizes_.begin(program, smallest);
  note_input(input);
}

void Matcher::note_input(const Extents& input) {
  const InputSizes sizes(*program_, input);
  sizes_.note_input(sizes);
  if (!sizes.says_something()) return;
  for (std::size_t i = 0; i < optional_.size(); ++i) {
    if (const auto has = sizes.inputs().has_node(program_->nodes[i])) optional_[i] = *has ? 0 : 1;
    absent_[i] = sizes.inputs().is_lacking(program_->nodes[i]) ? 1 : 0;
  }
}

// Was the next node always of the same size, but for padding?
bool Matcher::are_twins(std::uint32_t node) const {
  if (node + 1 >= program_->nodes.size()) return false;
  const std::vector<Bytes>& first = program_->nodes[node].sizes;
  return std::equal(first.begin(), first.end(), program_->nodes[node + 1].sizes.begin(),
                    [](Bytes a, Bytes b) { return a.value > 0 && is_close(b, a); });
}

void Matcher::take_second_twin() {
  const std::uint32_t first = *lone_twin_;
  used_[first + 1] = 1;
  const auto class_of = [this](std::uint32_t node) { return program_->nodes[node].size_class; };
  for (std::uint32_t node = first; node + 1 < program_->nodes.size(); ++node) {
    const bool is_alike = class_of(node) == class_of(first) && class_of(node + 1) == class_of(first + 1);
    if (!is_alike || (node != first && (used_[node] != 0 || used_[node + 1] != 0))) continue;
    optional_[node] = absent_[node] = 1;
  }
}

// Not to be passed over lightly.
bool Matcher::is_due(std::uint32_t node) const {
  return used_[node] == 0 && optional_[node] == 0 && !sizes_.is_too_small(node);
}

std::optional<std::uint32_t> Matcher::find_exact(std::uint32_t begin, std::uint32_t end, Bytes size,
                                                 bool guesses_count) const {
  end = std::min(end, static_cast<std::uint32_t>(program_->nodes.size()));
  // A request that was not recognised may have been one of those that are passed over.
  const std::size_t most = kMaxPassed + unmatched_.size();
  std::size_t passed = 0;
  for (std::uint32_t node = begin; node < end; ++node) {
    if (used_[node] == 0 && (guesses_count || !sizes_.is_far_guess(node)) && sizes_.is_exact(node, size)) return node;
    const bool is_passed = node >= cursor_ && is_due(node) && program_->nodes[node].missed == 0;
    if (sizes_.trusts_input() && is_passed && ++passed > most) return std::nullopt;
  }
  return std::nullopt;
}

// What the last rounds lacked stands back behind what they had: of two tensors of one size in a row the second one may
// be there always and the first one seldom.
std::uint32_t Matcher::likeliest_from(std::uint32_t node, Bytes size) const {
  const auto count = static_cast<std::uint32_t>(program_->nodes.size());
  std::uint32_t next = node;
  while (next < count && next < node + kNear && optional_[next] != 0) ++next;
  return next < count && used_[next] == 0 && sizes_.is_exact(next, size) ? next : node;
}

std::uint32_t Matcher::match_node(Bytes size) {
  const std::uint32_t found = find(size);
  lone_twin_.reset();
  if (found != kNoNode) [[likely]] {
    if (last_taken_ && found > *last_taken_ + 1) [[unlikely]] note_passed_over();
    last_taken_ = found;
    unmatched_.clear();
  } else {
    last_taken_.reset();
    unmatched_.push_back(size);
    sizes_.note_unmatched(size);
  }
  return found;
}

void Matcher::note_passed_over() {
  if (are_twins(*last_taken_) && is_due(*last_taken_ + 1)) lone_twin_ = last_taken_;
}

std::uint32_t Matcher::find(Bytes size) {
  if (cursor_ >= count_ || !sizes_.is_exact(cursor_, size)) [[unlikely]] return search(size);
  return take(optional_[cursor_] == 0 ? cursor_ : likeliest_from(cursor_, size), size, true);
}

// What is not the next one.
std::uint32_t Matcher::search(Bytes size) {
  const auto count = static_cast<std::uint32_t>(program_->nodes.size());
  while (cursor_ < count && sizes_.is_too_small(cursor_)) ++cursor_;
  const std::uint32_t back = cursor_ - std::min(cursor_, kNear);
  for (const bool guesses_count : {false, true}) {
    if (const auto node = find_exact(cursor_, cursor_ + kNear, size, guesses_count)) {
      return take(*node, size, true);
    }
    if (const auto node = find_exact(back, cursor_, size, guesses_count)) return take(*node, size, true);
    if (cursor_ < count && sizes_.is_loose(cursor_, size)) return take(cursor_, size, false);
  }
  if (const auto node = find_far(size)) return take(*node, size, true);
  return kNoNode;
}

// How many of the last requests, the one at hand included, the node and those before it expect in their order. What
// need not come may stand between them.
std::size_t Matcher::run_ending_at(std::uint32_t node, Bytes size) const {
  if (used_[node] != 0 || !sizes_.is_exact(node, size)) return 0;
  const std::size_t most = std::min(unmatched_.size() + 1, kLongRun);
  std::size_t run = 1;
  for (std::uint32_t before = node; run < most && before > cursor_;) {
    if (sizes_.is_exact(--before, unmatched_[unmatched_.size() - run])) {
      ++run;
    } else if (is_due(before)) {
      break;
    }
  }
  return run;
}

// Further ahead a run of requests must be found, one alone is more likely one too many; and a long run if what is passed
// over is more than what is found. All that was not recognised belongs to the run, unless the run alone is more than what
// is passed over: what was not recognised is then that, at sizes that follow from nothing. Where sizes do not follow from
// the input, too few are known to ask for runs.
std::optional<std::uint32_t> Matcher::find_far(Bytes size) const {
  if (!sizes_.trusts_input()) return find_exact(cursor_ + kNear, cursor_ + kFar, size, false);
  if (unmatched_.empty()) return std::nullopt;
  const Bytes found = std::accumulate(unmatched_.begin(), unmatched_.end(), size);
  const std::size_t whole = std::min(unmatched_.size() + 1, kLongRun);
  const auto end = std::min(cursor_ + kFar, static_cast<std::uint32_t>(program_->nodes.size()));
  Bytes passed;
  for (std::uint32_t node = cursor_; node < end; ++node) {
    const std::size_t run = run_ending_at(node, size);
    if (run == whole) return node;
    if (run >= 2 && std::accumulate(unmatched_.end() - static_cast<std::ptrdiff_t>(run - 1), unmatched_.end(), size) > passed) return node;
    if (is_due(node)) passed += expected(node);
    if (passed.value > kWorthPassing * found.value && unmatched_.size() + 1 < kLongRun) return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace ebbtide
