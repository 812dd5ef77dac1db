// What a round's requests should be in size, class by class: known beforehand, or learnt from those seen.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "allocator/runtime/input_sizes.h"
#include "allocator/runtime/program.h"

namespace ebbtide {

// A prediction is met when the size is this close: kernels pad, statistics round up.
bool is_close(Bytes size, Bytes expected, std::int64_t part = 128);

// The first request of a size class that is seen in a round binds the class; the others must agree exactly, so no
// length needs to be known and several varying dimensions work. What is seen of one class tells about the others
// (predict_size). Where the extents of the round's input are known, the sizes that follow from them (InputSizes) are
// expected from the start, until most of what is seen shows that nothing follows from them.
//
// Keeps a reference to the program, which must outlive the round. Not thread-safe.
// Cost: binding a class is linear in the number of classes while anything can still be said better of one of them,
// everything else constant.
class ExpectedSizes {
 public:
  // Starts over. Requests are at least `smallest`.
  void begin(const Program& program, Bytes smallest);
  // The input became known, at the start or while the round was under way.
  void note_input(const InputSizes& sizes);
  bool trusts_input() const { return trusts_input_; }
  // Whose extents a size follows from is open: see KnownInputs::mixes_tensors().
  bool mixes_tensors() const { return trusts_input_ && mixes_tensors_; }

  // The size expected for a node; 0 while nothing is known. (A guess counts: it is better than none when room is made
  // for it.)
  Bytes expected(std::uint32_t node) const { return expected_[class_of(node)]; }
  // The least that the node may be of: less than expected where the input leaves several sizes possible.
  Bytes least(std::uint32_t node) const;
  // True when that size was not predicted but requested, for this node or one of its class.
  bool is_seen(std::uint32_t node) const { return knowledge_[class_of(node)] == Knowledge::kSeen; }
  // Several shapes agree on that size, or it was seen.
  bool is_sure(std::uint32_t node) const { return knowledge_[class_of(node)] >= Knowledge::kSure; }
  // Predicted from a tensor of another order of size, by one shape alone: perhaps by chance.
  bool is_far_guess(std::uint32_t node) const;
  // `size` is what is expected of the node.
  bool is_exact(std::uint32_t node, Bytes size) const {
    const std::uint32_t c = class_of(node);
    return knowledge_[c] != Knowledge::kNone && (size == expected_[c] || is_nearly_exact(c, size));
  }
  // The same to the byte, and nothing is to be learnt from it: no news either.
  bool is_foregone(std::uint32_t node, Bytes size) const {
    const std::uint32_t c = class_of(node);
    return size == expected_[c] && (knowledge_[c] == Knowledge::kSeen || is_uninformative(c, size));
  }
  // `size` is none that is expected, but may be the node's all the same.
  bool is_loose(std::uint32_t node, Bytes size) const;
  // The node's request will be smaller than any that is recorded: it is not waited for.
  bool is_too_small(std::uint32_t node) const;

  // The request of the node was of this size.
  void note_match(std::uint32_t node, Bytes size) {
    const std::uint32_t c = class_of(node);
    if (knowledge_[c] != Knowledge::kSeen) [[unlikely]] return bind(c, size);
    if (!candidates_[c].sizes.empty()) [[unlikely]] explained_ += size;
  }
  // A request of this size was none that is expected.
  void note_unmatched(Bytes size) { judge_input(size, false); }
  // True once after the sizes expected of this round became known or changed.
  bool has_news() const { return news_; }
  bool take_news() { return std::exchange(news_, false); }

 private:
  enum class Knowledge : std::uint8_t { kNone, kGuess, kSure, kSeen };

  std::uint32_t class_of(std::uint32_t node) const { return program_->nodes[node].size_class; }
  // It has one size, whatever the input.
  bool is_constant(std::uint32_t size_class) const {
    return program_->is_constant(size_class) && (!has_new_extent_ || program_->is_parameter_like(size_class));
  }
  void expect_constants();
  bool is_uninformative(std::uint32_t size_class, Bytes size) const;
  [[gnu::cold]] bool is_nearly_exact(std::uint32_t size_class, Bytes size) const;
  void judge_input(Bytes size, bool follows);
  void forget_input();
  bool is_candidate(std::uint32_t size_class, Bytes size) const;
  bool may_be_new(Bytes size) const;
  bool is_in_proportion(std::uint32_t node, Bytes size) const;
  void note_ratio(std::uint32_t size_class, Bytes size);
  void note_other_shape();
  [[gnu::noinline]] void bind(std::uint32_t size_class, Bytes size);
  void predict_from(std::uint32_t size_class, Bytes size);
  bool may_improve(std::uint32_t size_class) const;

  const Program* program_ = nullptr;
  std::vector<Bytes> expected_;       // per class
  std::vector<Knowledge> knowledge_;  // per class: of expected_
  std::vector<double> distance_;      // per class: to the class that it was predicted from (see Prediction)
  std::vector<double> ratios_;        // of sizes seen to those of the program's only shape, each once
  std::vector<InputSizes::Candidates> candidates_;  // per class: what follows from the input
  bool is_other_shape_ = false;       // this round is known not to be the program's only shape again
  Bytes explained_;                   // of the sizes seen, what followed from the input
  Bytes unexplained_;                 // and what did not
  int doubts_ = 0;                    // how many did not
  bool trusts_input_ = false;
  bool mixes_tensors_ = false;
  bool has_new_extent_ = false;       // see KnownInputs::has_new_extent()
  bool may_predict_ = true;           // of some class a prediction could still be better than what is expected
  Bytes smallest_;
  bool news_ = false;
};

}  // namespace ebbtide
