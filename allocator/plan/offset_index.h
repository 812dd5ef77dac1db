// The buffers placed so far, in order of offset, and the gaps between those that live at the same
// time as a newcomer.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "allocator/plan/compact.h"

namespace ebbtide {

enum class FitRule {
  kFirst,  // the lowest gap that is large enough
  kBest,   // the gap that leaves least behind, the lowest of them
};

// Owned by one pass; not thread-safe. A placed buffer has one entry for each of its spans. Entries
// lie in blocks of 64, in order of offset, so that one block is compared with a newcomer's
// lifetime by a few vector instructions. find: O(n / 64 + live neighbours); insert: O(n / 64).
//
// Invariants: (1) 0 < count <= kBlock in every block; (2) offsets ascend within and across blocks;
// (3) unused entries match no lifetime.
class OffsetIndex {
 public:
  // Forgets everything and keeps the memory.
  void clear();

  // The offset that the rule chooses, a multiple of alignment. Requires: size > 0, alignment > 0.
  std::int64_t find(std::span<const Span32> live, std::int64_t size, std::int64_t alignment,
                    FitRule rule) const;

  // Requires: size > 0. Overlap with what is there is allowed: fixed buffers are not this class's
  // to judge.
  void insert(std::span<const Span32> live, std::int64_t offset, std::int64_t size);

  bool is_valid() const;

 private:
  static constexpr std::uint32_t kBlock = 64;

  struct Block {
    std::array<std::int32_t, kBlock> births;
    std::array<std::int32_t, kBlock> deaths;
    std::array<std::int64_t, kBlock> offsets;
    std::array<std::int64_t, kBlock> ends;
    std::uint32_t count;
  };
  // What a search needs to pass over a block without touching it.
  struct Summary {
    std::int64_t low_offset;
    std::int64_t high_end;
    std::int32_t first_birth;
    std::int32_t last_death;
    std::uint32_t block;  // index into blocks_
  };

  static std::uint64_t neighbours(const Block& block, Span32 span);
  static std::uint64_t neighbours(const Block& block, std::span<const Span32> live);
  std::uint32_t new_block();
  void insert_entry(Span32 span, std::int64_t offset, std::int64_t end);
  void split(std::size_t position);
  void summarise(std::size_t position);

  std::vector<Block> blocks_;
  std::uint32_t used_blocks_ = 0;
  std::vector<Summary> order_;  // the blocks, lowest offset first
};

}  // namespace ebbtide
