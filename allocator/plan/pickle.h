// A reader of Python pickles that hold plain data: numbers, text, lists, tuples and dictionaries.
//
// Nothing in a pickle is executed: what would import a name or call it is refused, with its byte.
// Memory is at most about 40 times the input's size, whatever the input says.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "allocator/base/result.h"

namespace ebbtide {

class Pickle;

// A value inside a Pickle, which must outlive it. A value may contain itself: walk by a known
// schema.
class PickleValue {
 public:
  PickleValue(const Pickle& pickle, std::uint32_t node) : pickle_(&pickle), node_(node) {}

  std::size_t position() const;  // of the byte that made it
  // Each is absent when the value is of another type.
  std::optional<std::int64_t> integer() const;  // also absent when it has more than 64 bits
  std::optional<std::string_view> text() const;
  std::optional<std::vector<PickleValue>> list() const;  // or a tuple
  // The value of a key of a dictionary; absent when there is none. Looks at kMaxKeys keys at most.
  std::optional<PickleValue> at(std::string_view key) const;
  bool is_dictionary() const;

  static constexpr std::size_t kMaxKeys = 64;

 private:
  const Pickle* pickle_;
  std::uint32_t node_;
};

// Immutable once read. The bytes must outlive it.
class Pickle {
 public:
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 31;

  // Protocols 2 to 5. kInvalidArgument with "source: byte N: reason".
  static Result<Pickle> read(std::string_view bytes, const std::string& source);

  PickleValue root() const { return {*this, root_}; }

 private:
  friend class PickleValue;
  friend class PickleMachine;

  enum class Kind : std::uint8_t { kOther, kInteger, kText, kList, kDictionary };
  // kInteger: the number. kText: where it begins, and `length`. Containers: an index of items_, or
  // kNoItems while they are empty.
  struct Node {
    std::int64_t value;
    std::uint32_t length;
    std::uint32_t position;
  };
  static constexpr std::int64_t kNoItems = -1;

  std::span<const std::uint32_t> items_of(std::uint32_t node) const;

  std::string_view bytes_;
  // Deques: a vector would take three times its size while it grows. kinds_[i] is of nodes_[i].
  std::deque<Node> nodes_;
  std::deque<Kind> kinds_;
  std::deque<std::vector<std::uint32_t>> items_;  // of a dictionary: key, value, key, value, ...
  std::uint32_t root_ = 0;
};

}  // namespace ebbtide
