// The inputs that a program was observed with, beside the one of this round: which are like it, and in what they differ.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "allocator/runtime/program.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

// Belongs to one round; program and input must outlive it. Not thread-safe.
class KnownInputs {
 public:
  KnownInputs(const Program& program, const Extents& input);

  // Shapes of the program whose inputs have as many extents as this one, and as many of pieces. Empty where nothing is
  // known of this one.
  const std::vector<std::size_t>& shapes() const { return shapes_; }
  const Extents& input() const { return input_; }
  const Extents& input_of(std::size_t shape) const { return program_.inputs[shape]; }
  // Positions of extents that differ between inputs, each kind once.
  const std::vector<std::size_t>& varying() const { return varying_; }
  // Extents before it are of tensors, those from there on of pieces.
  std::size_t pieces_begin() const { return pieces_begin_; }

  // A round with this very input was observed.
  bool has_this_one() const;
  // Extents of several tensors vary, an encoder's and a decoder's: what is one's grows with its own, and no size tells
  // whose it is. (Each tensor begins with the batch.)
  bool mixes_tensors() const;
  // An extent differs that was the same in all that was observed (the last batch of an epoch is smaller), or their product
  // does (as many tokens in rows of any length, but for what a row has no room for): what was of one size so far may be of
  // another now.
  bool has_new_extent() const;
  // Does a round of this input have the node? Observed shapes tell that share an extent with it (a batch of one takes
  // other kernels than larger ones do); none if there is no such shape.
  std::optional<bool> has_node(const Node& node) const;
  // Rounds of this very input were observed, and none of them had the node.
  bool is_lacking(const Node& node) const;

 private:
  bool are_same_extent(std::size_t a, std::size_t b) const;
  double tokens_of(const Extents& extents) const;
  void find_varying();
  void find_related();

  const Program& program_;
  const Extents& input_;
  std::size_t pieces_begin_ = 0;
  std::vector<std::size_t> shapes_;
  std::vector<std::size_t> related_;  // of these, those that share as many of the varying extents as any, and at least one
  std::vector<std::size_t> varying_;
};

}  // namespace ebbtide
