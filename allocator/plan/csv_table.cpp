#include "allocator/plan/csv_table.h"

#include <charconv>
#include <istream>
#include <utility>

namespace ebbtide {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

CsvField trimmed(CsvField field) {
  const std::size_t first = field.text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {{}, field.column};
  const std::size_t last = field.text.find_last_not_of(" \t");
  return {field.text.substr(first, last - first + 1), field.column + first};
}

}  // namespace

CsvTable::CsvTable(std::istream& input, std::string source)
    : input_(input), source_(std::move(source)) {}

bool CsvTable::next() {
  ++line_;
  fields_.clear();
  if (!std::getline(input_, text_)) return false;
  if (!text_.empty() && text_.back() == '\r') text_.pop_back();
  std::string_view text = text_;
  if (line_ == 1 && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  if (text.empty()) return false;
  fields_ = split_field({text, 1}, ',', kMaxFields + 1);
  return true;
}

Error CsvTable::fault(std::size_t column, const std::string& reason) const {
  return {ErrorCode::kInvalidArgument,
          source_ + ":" + std::to_string(line_) + ":" + std::to_string(column) + ": " + reason};
}

Result<std::int64_t> CsvTable::number(const CsvField& field, std::string_view name) const {
  std::int64_t value = 0;
  const char* const end = field.text.data() + field.text.size();
  const auto [rest, code] = std::from_chars(field.text.data(), end, value);
  if (code == std::errc{} && rest == end && !field.text.empty()) return value;
  return fault(field.column, std::string(name) + " is not an integer: " + quoted(field.text));
}

std::vector<CsvField> split_field(const CsvField& field, char separator, std::size_t limit) {
  std::vector<CsvField> parts;
  CsvField rest = field;
  for (;;) {
    const std::size_t at = rest.text.find(separator);
    if (at == std::string_view::npos || parts.size() + 1 == limit) {
      parts.push_back(trimmed(rest));
      return parts;
    }
    parts.push_back(trimmed({rest.text.substr(0, at), rest.column}));
    rest = {rest.text.substr(at + 1), rest.column + at + 1};
  }
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kShown = 40;
  std::string shown = "'";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    shown += byte < 0x20 || byte == 0x7F ? '?' : c;
  }
  if (text.size() > kShown) shown += "...";
  return shown + "'";
}

}  // namespace ebbtide
