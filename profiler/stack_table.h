// Stacks in a trace: from which lines of a program it allocates.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "allocator/base/event.h"
#include "allocator/base/export.h"
#include "profiler/owner_names.h"

namespace ebbtide {

// Numbers stacks. Who gathers one knows it by a key: words that are equal where the stacks are, such as code addresses.
// Texts are asked for once per key. They are kept, and written to the trace, as a tree: stacks that begin with the same
// calls share them. Thread-safe; calls nobody with its lock held but the sink.
class EBBTIDE_EXPORT StackTable {
 public:
  using Key = std::span<const std::uint64_t>;

  // Bounds what is kept, and what a trace grows by: 12 MiB of keys, 6 MiB of records, and the texts.
  static constexpr std::size_t kMostStacks = std::size_t{1} << 16;
  static constexpr std::size_t kMostWords = std::size_t{3} << 19;   // of all keys
  static constexpr std::size_t kMostFrames = std::size_t{1} << 17;  // of the tree

  // Both belong to the caller and outlive it.
  StackTable(EventSink& sink, OwnerNames& names);

  // 0: not known yet, so add() it. A full table answers with one number for all that it does not know.
  std::uint32_t find(Key key);
  // `frames` from the outermost on. The same number for the same frames, whatever their keys.
  std::uint32_t add(Key key, std::span<const std::string> frames);
  // The frames of a stack, the innermost first.
  std::vector<std::string> frames(std::uint32_t stack) const;

  // From here on what the calling thread allocates comes from this stack; 0: from an unknown one.
  void enter(std::uint32_t stack) noexcept;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(Key key) const noexcept;
    std::size_t operator()(const std::vector<std::uint64_t>& key) const noexcept { return (*this)(Key(key)); }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(Key a, Key b) const noexcept;
  };
  struct Frame {
    std::uint32_t text;    // its name's number
    std::uint32_t caller;  // a stack's number; 0: none
  };

  // With the lock.
  bool is_full(std::size_t words, std::size_t frames) const;
  std::uint32_t child(std::uint32_t caller, const std::string& text);

  EventSink& sink_;
  OwnerNames& names_;
  mutable std::mutex lock_;  // guards what follows
  std::unordered_map<std::vector<std::uint64_t>, std::uint32_t, Hash, Equal> stacks_;
  std::size_t words_ = 0;    // of the keys of stacks_
  std::unordered_map<std::string, std::uint32_t> texts_;       // to their names' numbers
  std::unordered_map<std::uint32_t, std::string_view> spoken_;  // the way back, into texts_
  std::vector<Frame> frames_;                                  // stack number n is frames_[n - 1]
  std::unordered_map<std::uint64_t, std::uint32_t> children_;  // caller << 32 | text to stack number
  std::uint32_t others_ = 0;                                   // of all that a full table does not know; 0: not full
};

}  // namespace ebbtide
