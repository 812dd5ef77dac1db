// The reader of plans; their writer is write_problem_csv.
#include <algorithm>
#include <istream>
#include <limits>
#include <optional>
#include <unordered_map>

#include "allocator/plan/csv_table.h"
#include "allocator/plan/problem_csv.h"

namespace ebbtide {
namespace {

struct PlanRow {
  std::string id;
  Offset offset;
  std::size_t line;
};

Result<std::size_t> place_of(const CsvTable& table, std::initializer_list<std::string_view> names) {
  const auto& fields = table.fields();
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const CsvField& field) {
    return std::find(names.begin(), names.end(), field.text) != names.end();
  });
  if (found != fields.end()) return static_cast<std::size_t>(found - fields.begin());
  return table.fault(1, "column '" + std::string(*names.begin()) + "' is missing");
}

Result<std::vector<PlanRow>> read_rows(CsvTable& table) {
  if (!table.next()) return table.fault(1, "the header is missing");
  const std::size_t width = table.fields().size();
  const auto id = place_of(table, {"id", "buffer", "buffer_id"});
  if (!id.ok()) return id.error();
  const auto at = place_of(table, {"offset"});
  if (!at.ok()) return at.error();
  std::vector<PlanRow> rows;
  while (table.next()) {
    const auto& fields = table.fields();
    if (fields.size() != width) {
      return table.fault(1, "the line has " + std::to_string(fields.size()) +
                                " fields, the header has " + std::to_string(width));
    }
    const auto offset = table.number(fields[at.value()], "offset");
    if (!offset.ok()) return offset.error();
    rows.push_back({std::string(fields[id.value()].text), Offset{offset.value()}, table.line()});
  }
  return rows;
}

bool agree_in_order(const std::vector<PlanRow>& rows, const std::vector<std::string>& ids) {
  return std::equal(rows.begin(), rows.end(), ids.begin(), ids.end(),
                    [](const PlanRow& row, const std::string& id) { return row.id == id; });
}

Result<std::vector<Offset>> offsets_by_id(const std::vector<PlanRow>& rows,
                                          const std::vector<std::string>& ids,
                                          const std::string& source) {
  const auto refuse = [&](ErrorCode code, std::size_t line, const std::string& reason) {
    std::string place = source;
    if (line > 0) place.append(":").append(std::to_string(line)).append(":1");
    return Error{code, place + ": " + reason};
  };
  std::unordered_map<std::string_view, std::size_t> places;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (places.emplace(ids[i], i).second) continue;
    return refuse(ErrorCode::kInvalidArgument, 0,
                  "the problem has two buffers with the id " + quoted(ids[i]) +
                      ", so the plan must hold all rows of the problem in its order");
  }
  std::vector<std::optional<Offset>> found(ids.size());
  for (const PlanRow& row : rows) {
    const auto place = places.find(row.id);
    if (place == places.end()) {
      return refuse(ErrorCode::kBadPlan, row.line, "the problem has no buffer " + quoted(row.id));
    }
    if (found[place->second]) {
      return refuse(ErrorCode::kInvalidArgument, row.line,
                    "buffer " + quoted(row.id) + " appears twice");
    }
    found[place->second] = row.offset;
  }
  std::vector<Offset> offsets;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!found[i]) {
      return refuse(ErrorCode::kBadPlan, 0, "the plan has no buffer " + quoted(ids[i]));
    }
    offsets.push_back(*found[i]);
  }
  return offsets;
}

// The highest end; an end that no arena reaches counts as the largest number there is.
Bytes height_of(const std::vector<Offset>& offsets, const Problem& problem) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::int64_t height = 0;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    const std::int64_t at = offsets[i].value;
    const std::int64_t size = problem.buffers[i].size.value;
    height = std::max(height, at > kMost - size ? kMost : at + size);
  }
  return Bytes{height};
}

}  // namespace

Result<Solution> read_plan_csv(std::istream& input, const std::string& source,
                               const NamedProblem& named) {
  CsvTable table(input, source);
  const auto rows = read_rows(table);
  if (!rows.ok()) return rows.error();
  Solution solution;
  if (agree_in_order(rows.value(), named.ids)) {
    for (const PlanRow& row : rows.value()) solution.offsets.push_back(row.offset);
  } else {
    auto offsets = offsets_by_id(rows.value(), named.ids, source);
    if (!offsets.ok()) return offsets.error();
    solution.offsets = std::move(offsets).value();
  }
  solution.height = height_of(solution.offsets, named.problem);
  return solution;
}

}  // namespace ebbtide
