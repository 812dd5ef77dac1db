#include "allocator/plan/problem_csv.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <ostream>
#include <string_view>

#include "allocator/plan/csv_table.h"

namespace ebbtide {
namespace {

enum Column { kId, kLower, kUpper, kSize, kAlignment, kOffset, kGaps, kHint, kColumns };
constexpr int kRequired = kSize + 1;

// The first name of each column is the one that messages use.
struct ColumnName {
  std::string_view text;
  Column column;
  bool inclusive = false;
};
constexpr std::array<ColumnName, 13> kNames{{{"id", kId},
                                             {"lower", kLower},
                                             {"upper", kUpper},
                                             {"size", kSize},
                                             {"alignment", kAlignment},
                                             {"offset", kOffset},
                                             {"gaps", kGaps},
                                             {"hint", kHint},
                                             {"buffer", kId},
                                             {"buffer_id", kId},
                                             {"begin", kLower},
                                             {"start", kLower},
                                             {"end", kUpper, true}}};

// So that one may be added, and anyone may take differences.
constexpr std::int64_t kMaxTick = std::int64_t{1} << 61;

// Reads one table. Each function returns an Error with its place, or nothing.
class ProblemReader {
 public:
  ProblemReader(std::istream& input, const std::string& source) : table_(input, source) {}

  Status read_header();
  Status read_rows(NamedProblem& named);

 private:
  Status read_name(const CsvField& field);
  Result<std::int64_t> number(Column column) const;
  Result<Tick> tick(const CsvField& field, std::string_view name, bool is_end) const;
  Status cut_gap(const CsvField& gap, Interval& rest, LiveRanges& live) const;
  Result<LiveRanges> read_live() const;
  Result<Buffer> read_buffer() const;
  Status read_offset(Buffer& buffer) const;
  const CsvField& field(Column column) const { return table_.fields()[*places_[column]]; }
  bool is_given(Column column) const { return places_[column] && !field(column).text.empty(); }

  CsvTable table_;
  std::array<std::optional<std::size_t>, kColumns> places_;  // which field of a line; none: absent
  std::size_t width_ = 0;
  bool inclusive_ = false;  // the life's end is its last tick
};

Status ProblemReader::read_name(const CsvField& field) {
  const auto name = std::find_if(kNames.begin(), kNames.end(),
                                 [&](const ColumnName& known) { return known.text == field.text; });
  if (name == kNames.end()) {
    return table_.fault(field.column, "unknown column " + quoted(field.text) +
                                          "; known are id, lower, upper (or end), size, alignment, "
                                          "offset, gaps, hint");
  }
  if (places_[name->column]) {
    return table_.fault(field.column,
                        "column '" + std::string(kNames[name->column].text) + "' appears twice");
  }
  places_[name->column] = width_++;
  inclusive_ = inclusive_ || name->inclusive;
  return Nothing{};
}

Status ProblemReader::read_header() {
  if (!table_.next()) return table_.fault(1, "the header is missing");
  for (const CsvField& field : table_.fields()) {
    if (const Status read = read_name(field); !read.ok()) return read;
  }
  for (std::size_t column = 0; column < kRequired; ++column) {
    if (places_[column]) continue;
    return table_.fault(1, "column '" + std::string(kNames[column].text) + "' is missing");
  }
  return Nothing{};
}

Result<std::int64_t> ProblemReader::number(Column column) const {
  return table_.number(field(column), kNames[column].text);
}

Result<Tick> ProblemReader::tick(const CsvField& field, std::string_view name, bool is_end) const {
  const auto value = table_.number(field, name);
  if (!value.ok()) return value.error();
  if (value.value() <= -kMaxTick || value.value() >= kMaxTick) {
    return table_.fault(field.column, std::string(name) + " is not between -2^61 and 2^61");
  }
  return Tick{value.value() + (is_end && inclusive_ ? 1 : 0)};
}

// Moves what lies before the gap from `rest` to `live`.
Status ProblemReader::cut_gap(const CsvField& gap, Interval& rest, LiveRanges& live) const {
  if (gap.text.find('@') != std::string_view::npos) {
    return table_.fault(gap.column, "gap " + quoted(gap.text) +
                                        " is a window (a-b@lo:hi), which is not supported: without "
                                        "it the buffer is whole there");
  }
  const std::size_t dash = gap.text.find('-', 1);
  if (dash == std::string_view::npos) {
    return table_.fault(gap.column, "gap " + quoted(gap.text) + " is not of the form a-b");
  }
  const auto from = tick({gap.text.substr(0, dash), gap.column}, "a gap's start", false);
  if (!from.ok()) return from.error();
  const auto to = tick({gap.text.substr(dash + 1), gap.column + dash + 1}, "a gap's end", true);
  if (!to.ok()) return to.error();
  if (from.value() < rest.birth || from.value() >= to.value() || to.value() > rest.death) {
    return table_.fault(gap.column, "gap " + quoted(gap.text) +
                                        " is empty, out of order or not inside the lifetime");
  }
  if (rest.birth < from.value()) live.push_back({rest.birth, from.value()});
  rest.birth = to.value();
  return Nothing{};
}

Result<LiveRanges> ProblemReader::read_live() const {
  const auto lower = tick(field(kLower), kNames[kLower].text, false);
  if (!lower.ok()) return lower.error();
  const auto upper = tick(field(kUpper), inclusive_ ? "end" : kNames[kUpper].text, true);
  if (!upper.ok()) return upper.error();
  Interval rest{lower.value(), upper.value()};
  if (!rest.is_valid()) return table_.fault(field(kUpper).column, "the lifetime is empty");
  LiveRanges live;
  if (is_given(kGaps)) {
    constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();
    for (const CsvField& gap : split_field(field(kGaps), ' ', kAll)) {
      if (gap.text.empty()) continue;
      if (const Status cut = cut_gap(gap, rest, live); !cut.ok()) return cut.error();
    }
  }
  if (rest.is_valid()) live.push_back(rest);
  if (live.empty())
    return table_.fault(field(kGaps).column, "the gaps leave nothing of the lifetime");
  return live;
}

Status ProblemReader::read_offset(Buffer& buffer) const {
  if (!is_given(kOffset)) return Nothing{};
  const auto offset = number(kOffset);
  if (!offset.ok()) return offset.error();
  if (offset.value() < 0) return Nothing{};
  if (offset.value() % buffer.alignment.value != 0) {
    return table_.fault(field(kOffset).column, "offset is not a multiple of the alignment " +
                                                   std::to_string(buffer.alignment.value));
  }
  buffer.fixed = Offset{offset.value()};
  return Nothing{};
}

Result<Buffer> ProblemReader::read_buffer() const {
  auto live = read_live();
  if (!live.ok()) return live.error();
  const auto size = number(kSize);
  if (!size.ok()) return size.error();
  if (size.value() < 0) return table_.fault(field(kSize).column, "size is negative");
  Buffer buffer{Bytes{size.value()}, std::move(live).value(), Bytes{1}, std::nullopt};
  if (is_given(kAlignment)) {
    const auto alignment = number(kAlignment);
    if (!alignment.ok()) return alignment.error();
    if (alignment.value() <= 0) {
      return table_.fault(field(kAlignment).column, "alignment is not positive");
    }
    buffer.alignment = Bytes{alignment.value()};
  }
  if (is_given(kHint)) {
    if (const auto hint = number(kHint); !hint.ok()) return hint.error();
  }
  if (const Status offset = read_offset(buffer); !offset.ok()) return offset.error();
  return buffer;
}

Status ProblemReader::read_rows(NamedProblem& named) {
  while (table_.next()) {
    if (const std::size_t width = table_.fields().size(); width != width_) {
      return table_.fault(1, "the line has " + std::to_string(width) + " fields, the header has " +
                                 std::to_string(width_));
    }
    auto buffer = read_buffer();
    if (!buffer.ok()) return buffer.error();
    named.problem.buffers.push_back(std::move(buffer).value());
    named.ids.emplace_back(field(kId).text);
  }
  return Nothing{};
}

// What check() says of rules that take more than one row, in words of the table.
Status check_rows(const NamedProblem& named, const std::string& source) {
  if (check(named.problem).ok()) return Nothing{};
  std::vector<std::string> names;
  for (std::size_t i = 0; i < named.ids.size(); ++i) {
    names.push_back("buffer " + quoted(named.ids[i]) + " (line " + std::to_string(i + 2) + ")");
  }
  const Status checked = check(named.problem, names);
  return Error{checked.error().code, source + ": " + checked.error().message};
}

void write_gaps(std::ostream& output, const LiveRanges& live) {
  for (std::size_t i = 1; i < live.size(); ++i) {
    if (i > 1) output << ' ';
    output << live[i - 1].death.value << '-' << live[i].birth.value;
  }
}

}  // namespace

Result<NamedProblem> read_problem_csv(std::istream& input, const std::string& source) {
  ProblemReader reader(input, source);
  if (const Status header = reader.read_header(); !header.ok()) return header.error();
  NamedProblem named;
  if (const Status rows = reader.read_rows(named); !rows.ok()) return rows.error();
  if (const Status checked = check_rows(named, source); !checked.ok()) return checked.error();
  return named;
}

Result<NamedProblem> read_problem_csv(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::kInvalidArgument, path + ": cannot be opened"};
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
