#include "allocator/runtime/known_inputs.h"

#include <algorithm>
#include <numeric>

namespace ebbtide {
namespace {

constexpr std::size_t kMaxVarying = 3;

// Those of pieces are negative.
std::size_t begin_of_pieces(const Extents& extents) {
  const auto first = std::find_if(extents.begin(), extents.end(), [](std::int64_t extent) { return extent < 0; });
  return static_cast<std::size_t>(first - extents.begin());
}

}  // namespace

KnownInputs::KnownInputs(const Program& program, const Extents& input)
    : program_(program), input_(input), pieces_begin_(begin_of_pieces(input)) {
  if (pieces_begin_ == 0 || std::find(input.begin(), input.end(), 0) != input.end()) return;
  for (std::size_t k = 0; k < program.inputs.size(); ++k) {
    const Extents& seen = program.inputs[k];
    if (seen.size() == input.size() && begin_of_pieces(seen) == pieces_begin_) shapes_.push_back(k);
  }
  find_varying();
  find_related();
}

bool KnownInputs::has_this_one() const {
  return std::any_of(shapes_.begin(), shapes_.end(), [this](std::size_t k) { return program_.inputs[k] == input_; });
}

bool KnownInputs::mixes_tensors() const {
  if (program_.has_other_inputs) return true;
  for (std::size_t p = varying_.empty() ? 0 : varying_.front() + 1; !varying_.empty() && p < varying_.back(); ++p) {
    if (are_same_extent(p, 0)) return true;
  }
  return false;
}

bool KnownInputs::has_new_extent() const {
  // Of what was observed and is equal in all of it, whether it is another now.
  const auto is_new = [this](const auto& of) {
    const auto first = of(input_of(shapes_.front()));
    return first != of(input_) && std::all_of(shapes_.begin(), shapes_.end(), [&](std::size_t k) { return of(input_of(k)) == first; });
  };
  if (varying_.empty()) return false;
  if (is_new([this](const Extents& extents) { return tokens_of(extents); })) return true;
  return std::any_of(varying_.begin(), varying_.end(), [&](std::size_t p) {
    return is_new([p](const Extents& extents) { return extents[p]; });
  });
}

double KnownInputs::tokens_of(const Extents& extents) const {
  return std::accumulate(varying_.begin(), varying_.end(), 1.0, [&](double product, std::size_t p) {
    return product * static_cast<double>(extents[p]);
  });
}

std::optional<bool> KnownInputs::has_node(const Node& node) const {
  if (related_.empty()) return std::nullopt;
  return std::any_of(related_.begin(), related_.end(), [&](std::size_t k) { return node.sizes[k].value != 0; });
}

bool KnownInputs::is_lacking(const Node& node) const {
  return has_this_one() && std::none_of(shapes_.begin(), shapes_.end(), [&](std::size_t k) {
           return program_.inputs[k] == input_ && node.sizes[k].value != 0;
         });
}

bool KnownInputs::are_same_extent(std::size_t a, std::size_t b) const {
  return input_[a] == input_[b] && std::all_of(shapes_.begin(), shapes_.end(), [&](std::size_t k) {
           return program_.inputs[k][a] == program_.inputs[k][b];
         });
}

void KnownInputs::find_varying() {
  for (std::size_t p = 0; p < pieces_begin_ && varying_.size() < kMaxVarying; ++p) {
    const bool varies = std::any_of(shapes_.begin(), shapes_.end(),
                                    [&](std::size_t k) { return program_.inputs[k][p] != input_[p]; });
    const bool is_new = std::none_of(varying_.begin(), varying_.end(), [&](std::size_t q) { return are_same_extent(p, q); });
    if (varies && is_new) varying_.push_back(p);
  }
}

void KnownInputs::find_related() {
  std::ptrdiff_t most = 1;
  for (const std::size_t k : shapes_) {
    const auto shared = std::count_if(varying_.begin(), varying_.end(),
                                      [&](std::size_t p) { return program_.inputs[k][p] == input_[p]; });
    if (shared > most) related_.clear();
    if (shared >= most) related_.push_back(k);
    most = std::max(most, shared);
  }
}

}  // namespace ebbtide
