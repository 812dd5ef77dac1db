#include "allocator/runtime/matcher.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ebbtide {
namespace {

constexpr std::uint32_t kNear = 16;
constexpr std::uint32_t kFar = 96;
constexpr std::size_t kLongRun = 6;
constexpr std::int64_t kWorthPassing = 4;
constexpr std::size_t kMaxPassed = 2;  // nodes that one request alone may pass over
constexpr double kClose = 8;  // ratio of sizes
constexpr double kSameRatio = 0.01;
constexpr int kEnoughDoubts = 4;
constexpr std::int64_t kCandidatePart = 1024;  // of a size: what follows from the input follows closely

// A prediction is met when the size is this close: kernels pad, statistics round up.
bool is_close(Bytes size, Bytes expected, std::int64_t part = 128) {
  const std::int64_t tolerance = std::max<std::int64_t>(1024, expected.value / part);
  return std::abs(size.value - expected.value) <= tolerance;
}

// Could the two be the same tensor at another length?
bool is_plausible(Bytes size, Bytes seen) {
  return size.value <= seen.value * 64 && seen.value <= size.value * 64;
}

}  // namespace

void Matcher::begin(const Program& program, Bytes smallest, const Extents& input) {
  program_ = &program;
  smallest_ = smallest;
  cursor_ = 0;
  unmatched_.clear();
  news_ = false;
  used_.assign(program.nodes.size(), 0);
  absent_.assign(program.nodes.size(), 0);
  last_taken_.reset();
  lone_twin_.reset();
  knowledge_.assign(program.class_sizes.size(), Knowledge::kNone);
  expected_.assign(program.class_sizes.size(), Bytes{});
  ratios_.clear();
  distance_.assign(program.class_sizes.size(), 1);
  for (std::uint32_t c = 0; c < program.class_sizes.size(); ++c) {
    if (!program.is_constant(c)) continue;
    expected_[c] = *std::max_element(program.class_sizes[c].begin(), program.class_sizes[c].end());
    knowledge_[c] = program.shapes >= 2 ? Knowledge::kSure : Knowledge::kGuess;
  }
  optional_.resize(program.nodes.size());
  for (std::size_t i = 0; i < program.nodes.size(); ++i) optional_[i] = program.nodes[i].missed > 0 ? 1 : 0;
  predict_from_input(input);
}

void Matcher::predict_from_input(const Extents& input) {
  explained_ = unexplained_ = Bytes{};
  doubts_ = 0;
  trusts_input_ = false;
  candidates_.assign(expected_.size(), {});
  const InputSizes sizes(*program_, input);
  trusts_input_ = sizes.says_something();
  if (!trusts_input_) return;
  for (std::size_t i = 0; i < optional_.size(); ++i) {
    if (const auto has = sizes.has_node(program_->nodes[i])) optional_[i] = *has ? 0 : 1;
  }
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    const bool is_parameter_like = program_->is_constant(c);
    if (knowledge_[c] == Knowledge::kSeen || (is_parameter_like && program_->shapes >= 2)) continue;
    candidates_[c] = sizes.candidates(c);
    const InputSizes::Candidates& found = candidates_[c];
    if (found.sizes.empty() || is_parameter_like) continue;
    expected_[c] = found.sizes.front();
    knowledge_[c] = found.sizes.size() == 1 && found.proven ? Knowledge::kSure : Knowledge::kGuess;
    news_ = true;
  }
}

// If most of what is seen does not follow from the input, the rest will not, either.
void Matcher::judge_input(Bytes size, bool follows) {
  (follows ? explained_ : unexplained_) += size;
  doubts_ += follows ? 0 : 1;
  if (trusts_input_ && doubts_ >= kEnoughDoubts && unexplained_ > explained_) forget_input();
}

void Matcher::forget_input() {
  trusts_input_ = false;
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (candidates_[c].sizes.empty()) continue;
    candidates_[c] = {};
    if (knowledge_[c] != Knowledge::kSeen) knowledge_[c] = Knowledge::kNone;
  }
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (knowledge_[c] == Knowledge::kSeen && !program_->is_constant(c)) predict_from(c, expected_[c]);
  }
}

bool Matcher::is_candidate(std::uint32_t size_class, Bytes size) const {
  const std::vector<Bytes>& candidates = candidates_[size_class].sizes;
  return std::any_of(candidates.begin(), candidates.end(), [size](Bytes candidate) { return is_close(size, candidate, kCandidatePart); });
}

bool Matcher::is_exact(std::uint32_t node, Bytes size) const {
  const std::uint32_t c = program_->nodes[node].size_class;
  if (knowledge_[c] == Knowledge::kNone) return false;
  if (size == expected_[c]) return true;
  // A class may hold tensors that were of one size by chance: what several sizes are possible for is not settled.
  if (candidates_[c].sizes.size() >= 2 && is_candidate(c, size)) return true;
  return !program_->is_constant(c) && knowledge_[c] != Knowledge::kSeen && is_close(size, expected_[c]);
}

// What was seen in this round must be met, and what follows from a tensor of like size; a relation to a
// much larger or smaller tensor may be chance, and a guess may be wrong.
bool Matcher::is_loose(std::uint32_t node, Bytes size) const {
  const Node& candidate = program_->nodes[node];
  const std::uint32_t c = candidate.size_class;
  const bool is_firm = knowledge_[c] == Knowledge::kSeen ||
                       (knowledge_[c] == Knowledge::kSure && distance_[c] <= kClose);
  const bool follows_input = candidates_[c].proven && !candidates_[c].sizes.empty();
  if (follows_input || (program_->shapes >= 2 && is_firm)) return false;
  if (program_->shapes == 1 && may_be_new(size) && !is_in_proportion(node, size)) return false;
  return is_plausible(size, expected_[c].value != 0 ? expected_[c] : candidate.slot);
}

// In the only shape known it may have been too small to be recorded.
bool Matcher::may_be_new(Bytes size) const {
  const double growth = ratios_.empty() ? 1.0 : *std::max_element(ratios_.begin(), ratios_.end());
  return static_cast<double>(size.value) < static_cast<double>(smallest_.value) * growth;
}

// Does the node's size change as others do that were seen in this round, or as their square?
bool Matcher::is_in_proportion(std::uint32_t node, Bytes size) const {
  const double ratio = static_cast<double>(size.value) / static_cast<double>(program_->nodes[node].slot.value);
  const auto is_near = [ratio](double other) { return std::abs(ratio - other) <= kSameRatio * other; };
  return is_near(1.0) || std::any_of(ratios_.begin(), ratios_.end(),
                                     [&](double seen) { return is_near(seen) || is_near(seen * seen); });
}

bool Matcher::is_too_small(std::uint32_t node) const {
  const std::uint32_t c = program_->nodes[node].size_class;
  if (knowledge_[c] == Knowledge::kSeen || knowledge_[c] == Knowledge::kNone) return false;
  const std::vector<Bytes>& candidates = candidates_[c].sizes;
  if (candidates.empty()) return knowledge_[c] == Knowledge::kSure && expected_[c] < smallest_;
  return std::all_of(candidates.begin(), candidates.end(), [this](Bytes size) { return size < smallest_; });
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
  return used_[node] == 0 && optional_[node] == 0 && !is_too_small(node);
}

std::optional<std::uint32_t> Matcher::find_exact(std::uint32_t begin, std::uint32_t end, Bytes size,
                                                 bool guesses_count) const {
  end = std::min(end, static_cast<std::uint32_t>(program_->nodes.size()));
  // A request that was not recognised may have been one of those that are passed over.
  const std::size_t most = kMaxPassed + unmatched_.size();
  std::size_t passed = 0;
  for (std::uint32_t node = begin; node < end; ++node) {
    const std::uint32_t c = program_->nodes[node].size_class;
    const bool is_guess = knowledge_[c] < Knowledge::kSure && distance_[c] > kClose;
    if (used_[node] == 0 && (guesses_count || !is_guess) && is_exact(node, size)) return node;
    if (trusts_input_ && node >= cursor_ && is_due(node) && ++passed > most) return std::nullopt;
  }
  return std::nullopt;
}

// What the last rounds lacked stands back behind what they had: of two tensors of one size in a row the second one may
// be there always and the first one seldom.
std::uint32_t Matcher::likeliest_from(std::uint32_t node, Bytes size) const {
  const auto count = static_cast<std::uint32_t>(program_->nodes.size());
  std::uint32_t next = node;
  while (next < count && next < node + kNear && optional_[next] != 0) ++next;
  return next < count && used_[next] == 0 && is_exact(next, size) ? next : node;
}

std::optional<Match> Matcher::match(Bytes size) {
  const std::optional<Match> found = find(size);
  lone_twin_.reset();
  if (found) {
    const bool passes_over = last_taken_ && found->node > *last_taken_ + 1;
    if (passes_over && are_twins(*last_taken_) && is_due(*last_taken_ + 1)) lone_twin_ = last_taken_;
    last_taken_ = found->node;
    unmatched_.clear();
  } else {
    last_taken_.reset();
    unmatched_.push_back(size);
    judge_input(size, false);
  }
  return found;
}

std::optional<Match> Matcher::find(Bytes size) {
  const auto count = static_cast<std::uint32_t>(program_->nodes.size());
  if (cursor_ < count && is_exact(cursor_, size)) return take(likeliest_from(cursor_, size), size, true);
  while (cursor_ < count && is_too_small(cursor_)) ++cursor_;
  const std::uint32_t back = cursor_ - std::min(cursor_, kNear);
  for (const bool guesses_count : {false, true}) {
    if (const auto node = find_exact(cursor_, cursor_ + kNear, size, guesses_count)) {
      return take(*node, size, true);
    }
    if (const auto node = find_exact(back, cursor_, size, guesses_count)) return take(*node, size, true);
    if (cursor_ < count && is_loose(cursor_, size)) return take(cursor_, size, false);
  }
  if (const auto node = find_far(size)) return take(*node, size, true);
  return std::nullopt;
}

// Does the node, with those before it, expect the last requests in their order?
bool Matcher::ends_run(std::uint32_t node, Bytes size) const {
  if (used_[node] != 0 || !is_exact(node, size)) return false;
  const auto run = static_cast<std::uint32_t>(std::min(unmatched_.size(), kLongRun - 1));
  for (std::uint32_t back = 1; back <= run; ++back) {
    if (node < cursor_ + back || !is_exact(node - back, unmatched_[unmatched_.size() - back])) return false;
  }
  return true;
}

// Further ahead a run of requests must be found, one alone is more likely one too many; and a long run if what is passed
// over is more than what is found. Where sizes do not follow from the input, too few are known to ask for runs.
std::optional<std::uint32_t> Matcher::find_far(Bytes size) const {
  if (!trusts_input_) return find_exact(cursor_ + kNear, cursor_ + kFar, size, false);
  if (unmatched_.empty()) return std::nullopt;
  const Bytes found = std::accumulate(unmatched_.begin(), unmatched_.end(), size);
  const auto end = std::min(cursor_ + kFar, static_cast<std::uint32_t>(program_->nodes.size()));
  Bytes passed;
  for (std::uint32_t node = cursor_; node < end; ++node) {
    if (ends_run(node, size)) return node;
    if (is_due(node)) passed += expected(node);
    if (passed.value > kWorthPassing * found.value && unmatched_.size() + 1 < kLongRun) return std::nullopt;
  }
  return std::nullopt;
}

Match Matcher::take(std::uint32_t node, Bytes size, bool exact) {
  used_[node] = 1;
  cursor_ = std::max(cursor_, node + 1);
  const std::uint32_t c = program_->nodes[node].size_class;
  if (knowledge_[c] != Knowledge::kSeen) {
    bind(c, size);
  } else if (!candidates_[c].sizes.empty()) {
    explained_ += size;
  }
  return {node, exact};
}

void Matcher::bind(std::uint32_t size_class, Bytes size) {
  note_ratio(size_class, size);
  news_ = news_ || expected_[size_class] != size;
  expected_[size_class] = size;
  knowledge_[size_class] = Knowledge::kSeen;
  if (program_->is_constant(size_class)) return;
  if (!candidates_[size_class].sizes.empty()) judge_input(size, is_candidate(size_class, size));
  predict_from(size_class, size);
}

void Matcher::note_ratio(std::uint32_t size_class, Bytes size) {
  const Bytes before = program_->class_sizes[size_class].empty() ? Bytes{} : program_->class_sizes[size_class][0];
  if (program_->shapes != 1 || before.value == 0) return;
  const double ratio = static_cast<double>(size.value) / static_cast<double>(before.value);
  const bool is_known = std::any_of(ratios_.begin(), ratios_.end(), [ratio](double seen) {
    return std::abs(seen - ratio) <= kSameRatio * seen;
  });
  if (!is_known) ratios_.push_back(ratio);
}

// Every class that is seen tells about the others: what several shapes agree on before a guess, and of
// equals the class that is closest in size.
void Matcher::predict_from(std::uint32_t size_class, Bytes size) {
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (knowledge_[c] == Knowledge::kSeen || program_->is_constant(c)) continue;
    const Prediction prediction = predict_size(*program_, c, size_class, size);
    if (prediction.size.value == 0) continue;
    const Knowledge knowledge = prediction.is_sure ? Knowledge::kSure : Knowledge::kGuess;
    if (knowledge < knowledge_[c]) continue;
    if (knowledge == knowledge_[c] && prediction.distance >= distance_[c]) continue;
    if (!candidates_[c].sizes.empty() && !is_candidate(c, prediction.size)) continue;
    news_ = news_ || expected_[c] != prediction.size;
    expected_[c] = prediction.size;
    knowledge_[c] = knowledge;
    distance_[c] = prediction.distance;
  }
}

}  // namespace ebbtide
