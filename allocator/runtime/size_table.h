// Rows of sizes, all of one length: per size class of a program, its size in every shape.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "allocator/base/units.h"

namespace ebbtide {

// One array for all rows: where all sizes of a program differ it has as many classes as nodes, and a vector each would
// take several times what it holds.
class SizeTable {
 public:
  using Row = std::span<const Bytes>;

  // Empties it; rows to come have this length.
  void clear(std::size_t length) {
    sizes_.clear();
    length_ = length;
    rows_ = 0;
  }
  // Requires: row.size() is the rows' length.
  void add(Row row) {
    sizes_.insert(sizes_.end(), row.begin(), row.end());
    ++rows_;
  }
  // No more rows come.
  void close() { sizes_.shrink_to_fit(); }

  std::size_t size() const { return rows_; }
  Row operator[](std::size_t row) const { return {sizes_.data() + row * length_, length_}; }
  bool operator==(const SizeTable&) const = default;

 private:
  std::vector<Bytes> sizes_;  // rows_ * length_ of them
  std::size_t length_ = 0;
  std::size_t rows_ = 0;
};

}  // namespace ebbtide
