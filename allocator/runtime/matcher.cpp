#include "allocator/runtime/matcher.h"

#include <algorithm>
#include <cmath>

namespace ebbtide {
namespace {

constexpr std::uint32_t kNear = 16;
constexpr std::uint32_t kFar = 96;
constexpr double kClose = 8;  // ratio of sizes
constexpr double kSameRatio = 0.01;

// A prediction is met when the size is this close: kernels pad, statistics round up.
bool is_close(Bytes size, Bytes expected) {
  const std::int64_t tolerance = std::max<std::int64_t>(1024, expected.value / 128);
  return std::abs(size.value - expected.value) <= tolerance;
}

// Could the two be the same tensor at another length?
bool is_plausible(Bytes size, Bytes seen) {
  return size.value <= seen.value * 64 && seen.value <= size.value * 64;
}

}  // namespace

void Matcher::begin(const Program& program, Bytes smallest) {
  program_ = &program;
  smallest_ = smallest;
  cursor_ = 0;
  news_ = false;
  used_.assign(program.nodes.size(), 0);
  knowledge_.assign(program.class_sizes.size(), Knowledge::kNone);
  expected_.assign(program.class_sizes.size(), Bytes{});
  ratios_.clear();
  distance_.assign(program.class_sizes.size(), 1);
  for (std::uint32_t c = 0; c < program.class_sizes.size(); ++c) {
    if (!program.is_constant(c)) continue;
    expected_[c] = *std::max_element(program.class_sizes[c].begin(), program.class_sizes[c].end());
    knowledge_[c] = program.shapes >= 2 ? Knowledge::kSure : Knowledge::kGuess;
  }
}

bool Matcher::is_exact(std::uint32_t node, Bytes size) const {
  const std::uint32_t c = program_->nodes[node].size_class;
  if (knowledge_[c] == Knowledge::kSeen || program_->is_constant(c)) return size == expected_[c];
  return knowledge_[c] != Knowledge::kNone && is_close(size, expected_[c]);
}

// What was seen in this round must be met, and what follows from a tensor of like size; a relation to a
// much larger or smaller tensor may be chance, and a guess may be wrong.
bool Matcher::is_loose(std::uint32_t node, Bytes size) const {
  const Node& candidate = program_->nodes[node];
  const std::uint32_t c = candidate.size_class;
  const bool is_firm = knowledge_[c] == Knowledge::kSeen ||
                       (knowledge_[c] == Knowledge::kSure && distance_[c] <= kClose);
  if (program_->shapes >= 2 && is_firm) return false;
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

std::optional<std::uint32_t> Matcher::find_exact(std::uint32_t begin, std::uint32_t end, Bytes size,
                                                 bool guesses_count) const {
  end = std::min(end, static_cast<std::uint32_t>(program_->nodes.size()));
  for (std::uint32_t node = begin; node < end; ++node) {
    const std::uint32_t c = program_->nodes[node].size_class;
    const bool is_guess = knowledge_[c] < Knowledge::kSure && distance_[c] > kClose;
    if (used_[node] == 0 && (guesses_count || !is_guess) && is_exact(node, size)) return node;
  }
  return std::nullopt;
}

std::optional<Match> Matcher::match(Bytes size) {
  const auto count = static_cast<std::uint32_t>(program_->nodes.size());
  if (cursor_ < count && is_exact(cursor_, size)) return take(cursor_, size, true);
  const auto is_too_small = [this](std::uint32_t node) {
    const std::uint32_t c = program_->nodes[node].size_class;
    return knowledge_[c] == Knowledge::kSure && expected_[c] < smallest_;
  };
  while (cursor_ < count && is_too_small(cursor_)) ++cursor_;
  const std::uint32_t back = cursor_ - std::min(cursor_, kNear);
  for (const bool guesses_count : {false, true}) {
    if (const auto node = find_exact(cursor_, cursor_ + kNear, size, guesses_count)) {
      return take(*node, size, true);
    }
    if (const auto node = find_exact(back, cursor_, size, guesses_count)) return take(*node, size, true);
    if (cursor_ < count && is_loose(cursor_, size)) return take(cursor_, size, false);
  }
  if (const auto node = find_exact(cursor_ + kNear, cursor_ + kFar, size, false)) {
    return take(*node, size, true);
  }
  return std::nullopt;
}

Match Matcher::take(std::uint32_t node, Bytes size, bool exact) {
  used_[node] = 1;
  cursor_ = std::max(cursor_, node + 1);
  const std::uint32_t c = program_->nodes[node].size_class;
  if (knowledge_[c] != Knowledge::kSeen) bind(c, size);
  return {node, exact};
}

void Matcher::bind(std::uint32_t size_class, Bytes size) {
  note_ratio(size_class, size);
  news_ = news_ || expected_[size_class] != size;
  expected_[size_class] = size;
  knowledge_[size_class] = Knowledge::kSeen;
  if (!program_->is_constant(size_class)) predict_from(size_class, size);
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
    news_ = news_ || expected_[c] != prediction.size;
    expected_[c] = prediction.size;
    knowledge_[c] = knowledge;
    distance_[c] = prediction.distance;
  }
}

}  // namespace ebbtide
