#include "allocator/runtime/expected_sizes.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ebbtide {
namespace {

constexpr double kClose = 8;  // ratio of sizes
constexpr double kSameRatio = 0.01;
constexpr int kEnoughDoubts = 4;
constexpr std::int64_t kCandidatePart = 1024;  // of a size: what follows from the input follows closely

// Could the two be the same tensor at another length?
bool is_plausible(Bytes size, Bytes seen) {
  return size.value <= seen.value * 64 && seen.value <= size.value * 64;
}

}  // namespace

bool is_close(Bytes size, Bytes expected, std::int64_t part) {
  const std::int64_t tolerance = std::max<std::int64_t>(1024, expected.value / part);
  return std::abs(size.value - expected.value) <= tolerance;
}

void ExpectedSizes::begin(const Program& program, Bytes smallest) {
  program_ = &program;
  smallest_ = smallest;
  news_ = false;
  const std::size_t classes = program.class_sizes.size();
  knowledge_.assign(classes, Knowledge::kNone);
  expected_.assign(classes, Bytes{});
  ratios_.clear();
  is_other_shape_ = false;
  distance_.assign(classes, 1);
  expect_constants();
  explained_ = unexplained_ = Bytes{};
  doubts_ = 0;
  trusts_input_ = has_new_extent_ = false;
  may_predict_ = true;
  candidates_.assign(classes, {});
}

void ExpectedSizes::expect_constants() {
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (knowledge_[c] == Knowledge::kSeen || !program_->is_constant(c)) continue;
    const SizeTable::Row sizes = program_->class_sizes[c];
    expected_[c] = *std::max_element(sizes.begin(), sizes.end());
    knowledge_[c] = program_->shapes >= 2 ? Knowledge::kSure : Knowledge::kGuess;
  }
}

void ExpectedSizes::note_input(const InputSizes& sizes) {
  expect_constants();
  explained_ = unexplained_ = Bytes{};
  doubts_ = 0;
  may_predict_ = true;
  candidates_.assign(expected_.size(), {});
  trusts_input_ = sizes.says_something();
  mixes_tensors_ = sizes.inputs().mixes_tensors();
  if (!trusts_input_) return;
  if (!sizes.inputs().has_this_one()) note_other_shape();
  has_new_extent_ = sizes.inputs().has_new_extent();
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (knowledge_[c] == Knowledge::kSeen || (is_constant(c) && program_->shapes >= 2)) continue;
    candidates_[c] = sizes.candidates(c);
    const InputSizes::Candidates& found = candidates_[c];
    if (found.sizes.empty() || is_constant(c)) continue;
    expected_[c] = found.sizes.front();
    knowledge_[c] = found.sizes.size() == 1 && found.proven ? Knowledge::kSure : Knowledge::kGuess;
    news_ = true;
  }
}

Bytes ExpectedSizes::least(std::uint32_t node) const {
  const std::uint32_t c = class_of(node);
  Bytes least = expected_[c];
  if (knowledge_[c] == Knowledge::kSeen) return least;
  for (const Bytes size : candidates_[c].sizes) least = std::min(least, size);
  if (!program_->repeats_module) return least;
  // A later forward may have made it, whose input is as it was.
  for (const Bytes size : program_->class_sizes[c]) least = size.value > 0 ? std::min(least, size) : least;
  return least;
}

bool ExpectedSizes::is_far_guess(std::uint32_t node) const {
  const std::uint32_t c = class_of(node);
  return knowledge_[c] < Knowledge::kSure && distance_[c] > kClose;
}

// If most of what is seen does not follow from the input, the rest will not, either.
void ExpectedSizes::judge_input(Bytes size, bool follows) {
  (follows ? explained_ : unexplained_) += size;
  doubts_ += follows ? 0 : 1;
  if (trusts_input_ && doubts_ >= kEnoughDoubts && unexplained_ > explained_) forget_input();
}

void ExpectedSizes::forget_input() {
  trusts_input_ = has_new_extent_ = false;
  may_predict_ = true;
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (candidates_[c].sizes.empty()) continue;
    candidates_[c] = {};
    if (knowledge_[c] != Knowledge::kSeen) knowledge_[c] = Knowledge::kNone;
  }
  expect_constants();
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (knowledge_[c] == Knowledge::kSeen && !program_->is_constant(c)) predict_from(c, expected_[c]);
  }
}

bool ExpectedSizes::is_candidate(std::uint32_t size_class, Bytes size) const {
  const std::vector<Bytes>& candidates = candidates_[size_class].sizes;
  return std::any_of(candidates.begin(), candidates.end(), [size](Bytes candidate) { return is_close(size, candidate, kCandidatePart); });
}

bool ExpectedSizes::is_nearly_exact(std::uint32_t c, Bytes size) const {
  // A class may hold tensors that were of one size by chance: what several sizes are possible for is not settled.
  if (candidates_[c].sizes.size() >= 2 && is_candidate(c, size)) return true;
  return !is_constant(c) && knowledge_[c] != Knowledge::kSeen && is_close(size, expected_[c]);
}

// What was seen in this round must be met, and what follows from a tensor of like size; a relation to a
// much larger or smaller tensor may be chance, and a guess may be wrong.
bool ExpectedSizes::is_loose(std::uint32_t node, Bytes size) const {
  const Node& candidate = program_->nodes[node];
  const std::uint32_t c = candidate.size_class;
  const bool is_firm = knowledge_[c] == Knowledge::kSeen ||
                       (knowledge_[c] == Knowledge::kSure && distance_[c] <= kClose);
  const bool follows_input = candidates_[c].proven && !candidates_[c].sizes.empty();
  if (follows_input || (program_->shapes >= 2 && is_firm)) return false;
  const bool follows = !trusts_input_ || candidates_[c].sizes.empty() || is_candidate(c, size);
  if (program_->shapes == 1 && (may_be_new(size) || !follows) && !is_in_proportion(node, size)) return false;
  return is_plausible(size, expected_[c].value != 0 ? expected_[c] : candidate.slot);
}

// In the only shape known it may have been too small to be recorded.
bool ExpectedSizes::may_be_new(Bytes size) const {
  const double growth = ratios_.empty() ? 1.0 : *std::max_element(ratios_.begin(), ratios_.end());
  return static_cast<double>(size.value) < static_cast<double>(smallest_.value) * growth;
}

// Does the node's size change as others do that were seen in this round, or as their square?
bool ExpectedSizes::is_in_proportion(std::uint32_t node, Bytes size) const {
  const double ratio = static_cast<double>(size.value) / static_cast<double>(program_->nodes[node].slot.value);
  const auto is_near = [ratio](double other) { return std::abs(ratio - other) <= kSameRatio * other; };
  return is_near(1.0) || std::any_of(ratios_.begin(), ratios_.end(),
                                     [&](double seen) { return is_near(seen) || is_near(seen * seen); });
}

bool ExpectedSizes::is_too_small(std::uint32_t node) const {
  const std::uint32_t c = class_of(node);
  if (knowledge_[c] == Knowledge::kSeen || knowledge_[c] == Knowledge::kNone) return false;
  const std::vector<Bytes>& candidates = candidates_[c].sizes;
  if (candidates.empty()) return knowledge_[c] == Knowledge::kSure && expected_[c] < smallest_;
  return std::all_of(candidates.begin(), candidates.end(), [this](Bytes size) { return size < smallest_; });
}

void ExpectedSizes::bind(std::uint32_t size_class, Bytes size) {
  note_ratio(size_class, size);
  news_ = news_ || expected_[size_class] != size;
  expected_[size_class] = size;
  knowledge_[size_class] = Knowledge::kSeen;
  if (is_constant(size_class)) return;
  if (!candidates_[size_class].sizes.empty()) judge_input(size, is_candidate(size_class, size));
  if (!program_->is_constant(size_class)) predict_from(size_class, size);
}

// Of the first of a class, which is of the size that was expected: see bind().
bool ExpectedSizes::is_uninformative(std::uint32_t size_class, Bytes size) const {
  if (knowledge_[size_class] == Knowledge::kNone || may_predict_ || !candidates_[size_class].sizes.empty()) return false;
  return program_->shapes != 1 || is_other_shape_ || program_->class_sizes[size_class][0] == size;
}

void ExpectedSizes::note_ratio(std::uint32_t size_class, Bytes size) {
  const Bytes before = program_->class_sizes[size_class].empty() ? Bytes{} : program_->class_sizes[size_class][0];
  if (program_->shapes != 1 || before.value == 0) return;
  const double ratio = static_cast<double>(size.value) / static_cast<double>(before.value);
  const bool is_known = std::any_of(ratios_.begin(), ratios_.end(), [ratio](double seen) {
    return std::abs(seen - ratio) <= kSameRatio * seen;
  });
  if (!is_known) ratios_.push_back(ratio);
  if (std::abs(ratio - 1) > kSameRatio) note_other_shape();
}

// Then what has the size it had in the only shape tells nothing about the rest: it may be a copy of a parameter.
void ExpectedSizes::note_other_shape() {
  if (program_->shapes != 1 || is_other_shape_) return;
  is_other_shape_ = may_predict_ = true;
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (knowledge_[c] != Knowledge::kSure || program_->is_constant(c)) continue;
    knowledge_[c] = Knowledge::kGuess;
    distance_[c] = std::numeric_limits<double>::max();
  }
}

// No prediction is better than a sure one from a class of the same size.
bool ExpectedSizes::may_improve(std::uint32_t c) const {
  const bool is_best = knowledge_[c] == Knowledge::kSure && distance_[c] <= 1;
  return knowledge_[c] != Knowledge::kSeen && !is_best && !program_->is_constant(c);
}

// Every class that is seen tells about the others: what several shapes agree on before a guess, and of
// equals the class that is closest in size.
void ExpectedSizes::predict_from(std::uint32_t size_class, Bytes size) {
  if (is_other_shape_ && size == program_->class_sizes[size_class][0]) return;
  if (!std::exchange(may_predict_, false)) return;
  for (std::uint32_t c = 0; c < expected_.size(); ++c) {
    if (!may_improve(c)) continue;
    may_predict_ = true;
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
