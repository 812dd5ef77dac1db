#include "hooks/settings.h"

#include <array>
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
  settings.mode = mode.value();
  settings.strict = strict.value();
  settings.log_level = level.value();
  settings.report = report.value();
  settings.trace_path = path_of(get("EBBTIDE_TRACE"));
  settings.plan_path = path_of(get("EBBTIDE_PLAN"));
  return settings;
}

}  // namespace ebbtide
