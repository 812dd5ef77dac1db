#include "hooks/settings.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

namespace ebbtide {
namespace {

template <typename T>
struct Choice {
  std::string_view text;
  T value;
};

// Unset and empty mean the default. Otherwise the value must be one of the choices.
template <typename T, std::size_t N>
Result<T> choose(const char* name, const char* text, T otherwise, const std::array<Choice<T>, N>& choices) {
  if (text == nullptr || *text == '\0') return otherwise;
  std::string allowed;
  for (const Choice<T>& choice : choices) {
    if (choice.text == text) return choice.value;
    allowed += (allowed.empty() ? "" : ", ") + std::string(choice.text);
  }
  return Error{ErrorCode::kInvalidArgument,
               std::string(name) + "=" + text + " is not a setting: allowed are " + allowed};
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() > end.size() && text.substr(text.size() - end.size()) == end;
}

Result<ReportTarget> report_target(const char* text) {
  if (text == nullptr || *text == '\0' || std::string_view(text) == "stderr") return ReportTarget{};
  const std::string_view value = text;
  if (value == "off") return ReportTarget{ReportTarget::Kind::kOff, {}};
  if (ends_with(value, ".txt")) return ReportTarget{ReportTarget::Kind::kText, text};
  if (ends_with(value, ".json")) return ReportTarget{ReportTarget::Kind::kJson, text};
  return Error{ErrorCode::kInvalidArgument,
               std::string("EBBTIDE_REPORT=") + text +
                   " is not a setting: allowed are stderr, off, or a path ending in .txt or .json"};
}

Result<OutOfMemoryTarget> out_of_memory_target(const char* text) {
  const std::string_view value = text == nullptr ? "" : text;
  if (value.empty() || value == "auto") return OutOfMemoryTarget{};
  if (value == "off") return OutOfMemoryTarget{true, {}};
  if (ends_with(value, ".txt")) return OutOfMemoryTarget{false, text};
  return Error{ErrorCode::kInvalidArgument,
               std::string("EBBTIDE_OOM=") + text + " is not a setting: allowed are auto, off, or a path ending in .txt"};
}

// As Python's side reads it: blanks around it and capitals do not matter.
std::string plain(const char* text) {
  std::string value = text == nullptr ? "" : text;
  const auto is_blank = [](unsigned char letter) { return std::isspace(letter) != 0; };
  value.erase(value.begin(), std::find_if_not(value.begin(), value.end(), is_blank));
  value.erase(std::find_if_not(value.rbegin(), value.rend(), is_blank).base(), value.end());
  std::transform(value.begin(), value.end(), value.begin(), [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return value;
}

Result<OffloadTarget> offload_target(const char* text) {
  const std::string value = plain(text);
  if (value.empty() || value == "off") return OffloadTarget{};
  if (value == "auto") return OffloadTarget{OffloadTarget::Kind::kAuto, 0};
  if (value == "memo") return OffloadTarget{OffloadTarget::Kind::kMemo, 0};
  double share = 0;
  const auto [rest, code] = std::from_chars(value.data(), value.data() + value.size(), share);
  if (code == std::errc{} && rest == value.data() + value.size() && share >= 0 && share <= 1) {
    return OffloadTarget{OffloadTarget::Kind::kShare, share};
  }
  return Error{ErrorCode::kInvalidArgument,
               std::string("EBBTIDE_OFFLOAD=") + text +
                   " is not a setting: allowed are off, auto, memo, or a number from 0 to 1"};
}

// A path has a slash: what has none is a wrong setting, not a library that is not there.
Result<CuptiTarget> cupti_target(const char* text) {
  const std::string_view value = text == nullptr ? "" : text;
  if (value.empty() || value == "0") return CuptiTarget{};
  if (value == "1") return CuptiTarget{true, {}};
  if (value.find('/') != std::string_view::npos) return CuptiTarget{true, text};
  return Error{ErrorCode::kInvalidArgument,
               std::string("EBBTIDE_CUPTI=") + text + " is not a setting: allowed are 0, 1, or the path of libcupti"};
}

struct Unit {
  std::string_view name;
  double bytes;
};
// Less than a page is no budget: a unit was forgotten.
constexpr double kLeastBareBytes = 4096;

constexpr std::array<Unit, 10> kUnits{{{"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
                                       {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0},
                                       {"TiB", 1099511627776.0}}};

Result<std::optional<Bytes>> size_of(const char* name, const char* text) {
  const std::string_view value = text == nullptr ? "" : text;
  if (value.empty()) return std::optional<Bytes>{};
  double number = 0;
  const char* const end = value.data() + value.size();
  const auto [rest, code] = std::from_chars(value.data(), end, number, std::chars_format::fixed);
  std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  for (const Unit& unit : kUnits) {
    if (code == std::errc{} && suffix == unit.name && number >= 0 && number * unit.bytes < 1e18) {
      if (suffix.empty() && number > 0 && number < kLeastBareBytes) {
        return Error{ErrorCode::kInvalidArgument,
                     std::string(name) + "=" + text + ": that is " + text + " bytes; did you mean " + text + "GiB?"};
      }
      return std::optional<Bytes>{Bytes{static_cast<std::int64_t>(number * unit.bytes)}};
    }
  }
  return Error{ErrorCode::kInvalidArgument,
               std::string(name) + "=" + text + " is not a setting: allowed is a size such as 120GiB"};
}

std::string path_of(const char* text) { return text == nullptr ? "" : text; }

}  // namespace

Result<Settings> Settings::read(const std::function<const char*(const char*)>& get) {
  Settings settings;
  const auto mode = choose<Mode>("EBBTIDE", get("EBBTIDE"), Mode::kOff,
                                 std::array<Choice<Mode>, 3>{{{"0", Mode::kOff}, {"1", Mode::kServe}, {"observe", Mode::kObserve}}});
  if (!mode.ok()) return mode.error();
  const auto strict = choose<bool>("EBBTIDE_STRICT", get("EBBTIDE_STRICT"), false,
                                   std::array<Choice<bool>, 2>{{{"0", false}, {"1", true}}});
  if (!strict.ok()) return strict.error();
  const auto level = choose<LogLevel>(
      "EBBTIDE_LOG", get("EBBTIDE_LOG"), LogLevel::kWarning,
      std::array<Choice<LogLevel>, 3>{{{"warning", LogLevel::kWarning}, {"info", LogLevel::kInfo}, {"debug", LogLevel::kDebug}}});
  if (!level.ok()) return level.error();
  const auto report = report_target(get("EBBTIDE_REPORT"));
  if (!report.ok()) return report.error();
  const auto out_of_memory = out_of_memory_target(get("EBBTIDE_OOM"));
  if (!out_of_memory.ok()) return out_of_memory.error();
  const auto offload = offload_target(get("EBBTIDE_OFFLOAD"));
  if (!offload.ok()) return offload.error();
  const auto device_budget = size_of("EBBTIDE_HBM", get("EBBTIDE_HBM"));
  if (!device_budget.ok()) return device_budget.error();
  const auto host_budget = size_of("EBBTIDE_HOST", get("EBBTIDE_HOST"));
  if (!host_budget.ok()) return host_budget.error();
  const auto stacks = choose<TraceStacks>("EBBTIDE_TRACE_STACKS", get("EBBTIDE_TRACE_STACKS"), TraceStacks::kOff,
                                          std::array<Choice<TraceStacks>, 4>{{{"off", TraceStacks::kOff},
                                                                              {"python", TraceStacks::kPython},
                                                                              {"cpp", TraceStacks::kCpp},
                                                                              {"all", TraceStacks::kAll}}});
  if (!stacks.ok()) return stacks.error();
  const auto cupti = cupti_target(get("EBBTIDE_CUPTI"));
  if (!cupti.ok()) return cupti.error();
  settings.mode = mode.value();
  settings.strict = strict.value();
  settings.log_level = level.value();
  settings.offload = offload.value();
  settings.device_budget = device_budget.value();
  settings.host_budget = host_budget.value();
  settings.report = report.value();
  settings.out_of_memory = out_of_memory.value();
  settings.trace_stacks = stacks.value();
  settings.cupti = cupti.value();
  settings.trace_path = path_of(get("EBBTIDE_TRACE"));
  settings.plan_path = path_of(get("EBBTIDE_PLAN"));
  return settings;
}

}  // namespace ebbtide
