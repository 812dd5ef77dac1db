// What the extents of a round's input (batch, length) say about the sizes of its requests.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "allocator/runtime/known_inputs.h"
#include "allocator/runtime/program.h"
#include "allocator/runtime/round.h"

namespace ebbtide {

// A tensor's size is mostly c * batch^i * length^j. Which i and j, the observed shapes tell: one shape leaves several
// possible, a second one, with another batch and another length, hardly ever more than one. Where an input is run in pieces,
// most tensors have a piece's tokens in place of batch x length: see Extents.
//
// Belongs to one round; the program must outlive it. Not thread-safe.
// Cost: linear in the shapes that were observed, for each class asked for.
class InputSizes {
 public:
  InputSizes(const Program& program, const Extents& input);

  // False when the input is not known, or no observed shape's is.
  bool says_something() const { return !inputs_.shapes().empty(); }
  const KnownInputs& inputs() const { return inputs_; }
  struct Candidates {
    std::vector<Bytes> sizes;  // that the class may have in this round, the likeliest first
    bool proven = false;       // several shapes agree, or divisibility leaves no doubt: it has one of these sizes
  };
  // No sizes when no power of the extents explains what was observed.
  Candidates candidates(std::uint32_t size_class) const;

 private:
  // c * product of padded extents, each to its power.
  struct Growth {
    std::vector<int> exponents;  // one for each of varying()
    std::int64_t padding = 1;    // long extents are rounded up to a multiple of it; of a square, one of the two
    std::optional<std::size_t> padded;  // the only one of these that is; none: every one
    std::optional<std::size_t> piece;   // position of what stands for batch x length
  };

  const std::vector<std::size_t>& varying() const { return inputs_.varying(); }
  int max_degree() const;
  bool is_plain(std::uint32_t size_class) const;
  void judge_plainness();
  void add_growths(std::vector<int> exponents);
  int likelihood(const Growth& growth) const;
  static std::int64_t padded(std::int64_t extent, const Growth& growth, std::size_t v);
  std::int64_t first_power(const Extents& extents, const Growth& growth, std::size_t v) const;
  double product(const Extents& extents, const Growth& growth) const;
  std::vector<Growth> divisors(std::uint32_t size_class, const std::vector<int>& exponents) const;
  bool is_of_tokens(const std::vector<int>& exponents) const;
  std::int64_t least_odd_part(const Growth& growth) const;
  std::optional<Growth> padded_divisor(std::uint32_t size_class, const std::vector<int>& exponents) const;
  bool divides(std::uint32_t size_class, const Growth& growth) const;
  bool is_by_chance(const Growth& growth) const;
  std::vector<bool> needed_extents(const std::vector<Growth>& fitting) const;
  Bytes size_by(std::uint32_t size_class, const Growth& growth) const;
  std::vector<Bytes> stairs(std::uint32_t size_class) const;

  const Program& program_;
  KnownInputs inputs_;
  std::vector<Growth> growths_;       // the likeliest first
  bool are_most_plain_ = false;       // most bytes are of tensors that have parts for every token, none of them padding
};

}  // namespace ebbtide
