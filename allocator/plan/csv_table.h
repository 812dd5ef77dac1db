// Lines of comma-separated fields, each of which knows its place, so that a message can say it.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "allocator/base/result.h"

namespace ebbtide {

struct CsvField {
  std::string_view text;   // without blanks at its ends; valid until the next line is read
  std::size_t column = 1;  // its first byte in the line, from 1
};

// Reads lines ended by LF or CRLF, up to the first empty one. No quoting: google/minimalloc has
// none. Owned by one reader; the stream must outlive it.
class CsvTable {
 public:
  static constexpr std::size_t kMaxFields = 64;  // of one line; more is no table of ours

  CsvTable(std::istream& input, std::string source);

  // Moves to the next line; false at the end and at an empty line.
  bool next();
  std::size_t line() const { return line_; }
  const std::vector<CsvField>& fields() const { return fields_; }

  // kInvalidArgument with "source:line:column: reason" for the current line.
  Error fault(std::size_t column, const std::string& reason) const;
  // The field as an integer of 64 bits; `name` is what the message calls it.
  Result<std::int64_t> number(const CsvField& field, std::string_view name) const;

 private:
  std::istream& input_;
  std::string source_;
  std::size_t line_ = 0;
  std::string text_;
  std::vector<CsvField> fields_;  // views into text_
};

// Cuts `field` at each `separator`, at most into `limit` parts; the last then holds the rest.
std::vector<CsvField> split_field(const CsvField& field, char separator, std::size_t limit);

// Text from a file as a message may show it: no control characters, bounded, in quotes.
std::string quoted(std::string_view text);

}  // namespace ebbtide
