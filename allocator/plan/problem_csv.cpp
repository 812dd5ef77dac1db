#include "allocator/plan/problem_csv.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>

namespace ebbtide {
namespace {

enum Column { kId, kLower, kUpper, kSize, kAlignment, kOffset, kGaps, kColumns };
constexpr std::array<std::string_view, kColumns> kNames{"id",        "lower",  "upper", "size",
                                                        "alignment", "offset", "gaps"};
constexpr int kRequired = kSize + 1;

// The field of each Column; absent columns have none.
using Fields = std::array<std::optional<std::string_view>, kColumns>;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

Error invalid(std::string reason) { return {ErrorCode::kInvalidArgument, std::move(reason)}; }

Result<std::int64_t> number(std::string_view text, std::string_view what) {
  std::int64_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault == std::errc{} && end == text.data() + text.size() && !text.empty()) return value;
  return invalid(std::string(what) + " is not an integer: '" + std::string(text) + "'");
}

Result<std::vector<Column>> parse_header(std::string_view line) {
  std::vector<Column> columns;
  for (const std::string_view name : split(line, ',')) {
    const auto at = std::find(kNames.begin(), kNames.end(), name);
    if (at == kNames.end()) return invalid("unknown column '" + std::string(name) + "'");
    const auto column = static_cast<Column>(at - kNames.begin());
    if (std::find(columns.begin(), columns.end(), column) != columns.end()) {
      return invalid("column '" + std::string(name) + "' appears twice");
    }
    columns.push_back(column);
  }
  for (int i = 0; i < kRequired; ++i) {
    if (std::find(columns.begin(), columns.end(), static_cast<Column>(i)) == columns.end()) {
      return invalid("column '" + std::string(kNames[static_cast<std::size_t>(i)]) +
                     "' is missing");
    }
  }
  return columns;
}

// Cuts the gaps ("5-7 8-9", in order) out of the lifetime.
Result<LiveRanges> parse_live(Tick lower, Tick upper, std::string_view gaps) {
  LiveRanges live;
  if (!gaps.empty()) {
    for (const std::string_view gap : split(gaps, ' ')) {
      const std::size_t dash = gap.find('-', 1);
      if (dash == std::string_view::npos) return invalid("a gap is not of the form a-b");
      const auto from = number(gap.substr(0, dash), "a gap's start");
      if (!from.ok()) return from.error();
      const auto to = number(gap.substr(dash + 1), "a gap's end");
      if (!to.ok()) return to.error();
      live.push_back({lower, Tick{from.value()}});
      lower = Tick{to.value()};
    }
  }
  live.push_back({lower, upper});
  if (!live.is_valid()) return invalid("the lifetime is empty, or a gap is not inside it");
  return live;
}

Result<Buffer> parse_buffer(const Fields& fields) {
  std::array<std::int64_t, kColumns> values{};
  values[kAlignment] = 1;
  values[kOffset] = -1;
  for (const Column column : {kLower, kUpper, kSize, kAlignment, kOffset}) {
    const std::string_view text = fields[column].value_or("");
    if (text.empty() && column >= kRequired) continue;
    const auto value = number(text, kNames[column]);
    if (!value.ok()) return value.error();
    values[column] = value.value();
  }
  auto live = parse_live(Tick{values[kLower]}, Tick{values[kUpper]}, fields[kGaps].value_or(""));
  if (!live.ok()) return live.error();
  Buffer buffer{.size = {values[kSize]},
                .live = std::move(live).value(),
                .alignment = {values[kAlignment]},
                .fixed = std::nullopt};
  if (values[kOffset] >= 0) buffer.fixed = Offset{values[kOffset]};
  return buffer;
}

Status append_row(std::string_view line, const std::vector<Column>& columns, NamedProblem& named) {
  const auto parts = split(line, ',');
  if (parts.size() != columns.size()) {
    return invalid("has " + std::to_string(parts.size()) + " fields, the header has " +
                   std::to_string(columns.size()));
  }
  Fields fields;
  for (std::size_t i = 0; i < parts.size(); ++i) fields[columns[i]] = parts[i];
  auto buffer = parse_buffer(fields);
  if (!buffer.ok()) return buffer.error();
  named.problem.buffers.push_back(std::move(buffer).value());
  named.ids.emplace_back(*fields[kId]);
  return Nothing{};
}

// Reads a line without its LF or CRLF; false at the end and at an empty line.
bool next_line(std::istream& input, std::string& line) {
  if (!std::getline(input, line)) return false;
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return !line.empty();
}

void write_gaps(std::ostream& output, const LiveRanges& live) {
  for (std::size_t i = 1; i < live.size(); ++i) {
    if (i > 1) output << ' ';
    output << live[i - 1].death.value << '-' << live[i].birth.value;
  }
}

}  // namespace

Result<NamedProblem> read_problem_csv(std::istream& input, const std::string& source) {
  const auto at_line = [&](int line_number, const Error& error) {
    return invalid(source + ":" + std::to_string(line_number) + ": " + error.message);
  };
  std::string line;
  if (!next_line(input, line)) return invalid(source + ":1: the header is missing");
  const auto columns = parse_header(line);
  if (!columns.ok()) return at_line(1, columns.error());
  NamedProblem named;
  for (int row = 2; next_line(input, line); ++row) {
    const Status added = append_row(line, columns.value(), named);
    if (!added.ok()) return at_line(row, added.error());
  }
  const Status checked = check(named.problem);
  if (!checked.ok()) return Error{checked.error().code, source + ": " + checked.error().message};
  return named;
}

Result<NamedProblem> read_problem_csv(const std::string& path) {
  std::ifstream file(path);
  if (!file) return invalid(path + ": cannot be opened");
  return read_problem_csv(file, path);
}

void write_problem_csv(std::ostream& output, const NamedProblem& named, const Solution* solution) {
  output << "id,lower,upper,size,alignment,offset,gaps\n";
  for (std::size_t i = 0; i < named.ids.size(); ++i) {
    const Buffer& buffer = named.problem.buffers[i];
    output << named.ids[i] << ',' << buffer.live.front().birth.value << ','
           << buffer.live.back().death.value << ',' << buffer.size.value << ','
           << buffer.alignment.value << ',';
    if (solution != nullptr) {
      output << solution->offsets[i].value;
    } else if (buffer.fixed) {
      output << buffer.fixed->value;
    }
    output << ',';
    write_gaps(output, buffer.live);
    output << '\n';
  }
}

}  // namespace ebbtide
