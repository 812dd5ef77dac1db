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

enum Column { kId, kLower, kUpper, kSize, kAlignment, kOffset, kGaps, kHint, kArena, kColumns };
constexpr int kRequired = kSize + 1;

// The first name of each column is the one that messages use.
struct ColumnName {
  std::string_view text;
  Column column;
  bool inclusive = false;
};
constexpr std::array<ColumnName, 14> kNames{{{"id", kId},
                                             {"lower", kLower},
                                             {"upper", kUpper},
                                             {"size", kSize},
                                             {"alignment", kAlignment},
                                             {"offset", kOffset},
                                             {"gaps", kGaps},
                                             {"hint", kHint},
                                             {"arena", kArena},
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
  Result<Interval> read_gap(const CsvField& gap, Interval allowed) const;
  Result<Window> read_window(const CsvField& text, Interval when, Bytes size) const;
  Status read_gaps(Interval rest, Buffer& buffer) const;
  Status read_live(Buffer& buffer) const;
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
                                          "offset, gaps, hint, arena");
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

// "a-b", inside what is allowed.
Result<Interval> ProblemReader::read_gap(const CsvField& gap, Interval allowed) const {
  const std::size_t dash = gap.text.find('-', 1);
  if (dash == std::string_view::npos) {
    return table_.fault(gap.column,
                        "gap " + quoted(gap.text) + " is not of the form a-b or a-b@lo:hi");
  }
  const auto from = tick({gap.text.substr(0, dash), gap.column}, "a gap's start", false);
  if (!from.ok()) return from.error();
  const auto to = tick({gap.text.substr(dash + 1), gap.column + dash + 1}, "a gap's end", true);
  if (!to.ok()) return to.error();
  if (from.value() < allowed.birth || from.value() >= to.value() || to.value() > allowed.death) {
    return table_.fault(gap.column, "gap " + quoted(gap.text) +
                                        " is empty, out of order or not inside the lifetime");
  }
  return Interval{from.value(), to.value()};
}

// "lo:hi".
Result<Window> ProblemReader::read_window(const CsvField& text, Interval when, Bytes size) const {
  const std::size_t colon = text.text.find(':');
  if (colon == std::string_view::npos) {
    return table_.fault(text.column, "window " + quoted(text.text) + " is not of the form lo:hi");
  }
  const auto low = table_.number({text.text.substr(0, colon), text.column}, "a window's start");
  if (!low.ok()) return low.error();
  const auto high =
      table_.number({text.text.substr(colon + 1), text.column + colon + 1}, "a window's end");
  if (!high.ok()) return high.error();
  if (low.value() < 0 || low.value() > high.value() || high.value() > size.value) {
    return table_.fault(text.column,
                        "window " + quoted(text.text) + " is out of order or not inside the size");
  }
  return Window{when, Bytes{low.value()}, Bytes{high.value()}};
}

// Cuts the gaps out of the lifetime `rest`. A window that leaves no byte is a gap.
Status ProblemReader::read_gaps(Interval rest, Buffer& buffer) const {
  constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();
  Tick next = rest.birth;  // where the next gap may begin
  for (const CsvField& text : split_field(field(kGaps), ' ', kAll)) {
    if (text.text.empty()) continue;
    const std::size_t at = std::min(text.text.find('@'), text.text.size());
    const auto gap = read_gap({text.text.substr(0, at), text.column}, {next, rest.death});
    if (!gap.ok()) return gap.error();
    next = gap.value().death;
    if (at < text.text.size()) {
      const auto window =
          read_window({text.text.substr(at + 1), text.column + at + 1}, gap.value(), buffer.size);
      if (!window.ok()) return window.error();
      if (window.value().low < window.value().high) {
        buffer.windows.push_back(window.value());
        continue;
      }
    }
    if (rest.birth < gap.value().birth) buffer.live.push_back({rest.birth, gap.value().birth});
    rest.birth = gap.value().death;
  }
  if (rest.is_valid()) buffer.live.push_back(rest);
  if (!buffer.live.empty()) return Nothing{};
  return table_.fault(field(kGaps).column, "the gaps leave nothing of the lifetime");
}

Status ProblemReader::read_live(Buffer& buffer) const {
  const auto lower = tick(field(kLower), kNames[kLower].text, false);
  if (!lower.ok()) return lower.error();
  const auto upper = tick(field(kUpper), inclusive_ ? "end" : kNames[kUpper].text, true);
  if (!upper.ok()) return upper.error();
  const Interval whole{lower.value(), upper.value()};
  if (!whole.is_valid()) return table_.fault(field(kUpper).column, "the lifetime is empty");
  if (is_given(kGaps)) return read_gaps(whole, buffer);
  buffer.live.push_back(whole);
  return Nothing{};
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
  const auto size = number(kSize);
  if (!size.ok()) return size.error();
  if (size.value() < 0) return table_.fault(field(kSize).column, "size is negative");
  Buffer buffer{Bytes{size.value()}, {}, Bytes{1}, std::nullopt};
  if (const Status live = read_live(buffer); !live.ok()) return live.error();
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
    if (places_[kArena]) {
      const std::uint32_t arena = named.arena_named(field(kArena).text);
      if (arena >= kMostArenas) {
        return table_.fault(field(kArena).column,
                            "there are more than " + std::to_string(kMostArenas) + " arenas");
      }
      named.problem.buffers.back().arena = arena;
    }
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

// Gaps and windows in order of time.
void write_gaps(std::ostream& output, const Buffer& buffer) {
  struct Gap {
    Interval when;
    const Window* window;
  };
  std::vector<Gap> gaps;
  for (std::size_t i = 1; i < buffer.live.size(); ++i) {
    const Interval gap{buffer.live[i - 1].death, buffer.live[i].birth};
    if (gap.is_valid()) gaps.push_back({gap, nullptr});
  }
  for (const Window& window : buffer.windows) gaps.push_back({window.when, &window});
  std::sort(gaps.begin(), gaps.end(),
            [](const Gap& a, const Gap& b) { return a.when.birth < b.when.birth; });
  const char* separator = "";
  for (const Gap& gap : gaps) {
    output << separator << gap.when.birth.value << '-' << gap.when.death.value;
    if (gap.window != nullptr) {
      output << '@' << gap.window->low.value << ':' << gap.window->high.value;
    }
    separator = " ";
  }
}

}  // namespace

std::uint32_t NamedProblem::arena_named(std::string_view name) {
  const auto found = std::find(arenas.begin(), arenas.end(), name);
  const auto arena = static_cast<std::uint32_t>(found - arenas.begin());
  if (found == arenas.end()) arenas.emplace_back(name);
  return arena;
}

Result<NamedProblem> read_problem_csv(std::istream& input, const std::string& source) {
  ProblemReader reader(input, source);
  if (const Status header = reader.read_header(); !header.ok()) return header.error();
  NamedProblem named;
  named.arenas.clear();
  if (const Status rows = reader.read_rows(named); !rows.ok()) return rows.error();
  if (named.arenas.empty()) named.arenas.emplace_back();
  if (const Status checked = check_rows(named, source); !checked.ok()) return checked.error();
  return named;
}

Result<NamedProblem> read_problem_csv(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::kInvalidArgument, path + ": cannot be opened"};
  return read_problem_csv(file, path);
}

void write_problem_csv(std::ostream& output, const NamedProblem& named, const Solution* solution) {
  const bool has_arenas = named.arenas.size() > 1 || !named.arenas.front().empty();
  output << "id,lower,upper,size,alignment,offset,gaps" << (has_arenas ? ",arena\n" : "\n");
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
    write_gaps(output, buffer);
    if (has_arenas) output << ',' << named.arenas[buffer.arena];
    output << '\n';
  }
}

}  // namespace ebbtide
