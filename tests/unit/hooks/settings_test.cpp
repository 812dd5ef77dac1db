#include "hooks/settings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace ebbtide {
namespace {

using Variables = std::map<std::string, std::string>;

Result<Settings> read(const Variables& variables) {
  return Settings::read([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

Settings allowed(const Variables& variables) {
  const Result<Settings> settings = read(variables);
  EXPECT_TRUE(settings.ok()) << settings.error().message;
  return settings.value();
}

// The message names the variable with its value, and every allowed value.
void expect_refused(const std::string& name, const std::string& value, const std::vector<std::string>& choices) {
  const Result<Settings> settings = read({{name, value}});
  ASSERT_FALSE(settings.ok()) << name << "=" << value;
  EXPECT_EQ(settings.error().code, ErrorCode::kInvalidArgument);
  const std::string& message = settings.error().message;
  EXPECT_NE(message.find(name + "=" + value), std::string::npos) << message;
  const std::string rest = message.substr(message.find("allowed"));
  for (const std::string& choice : choices) EXPECT_NE(rest.find(choice), std::string::npos) << message;
}

TEST(Settings, NothingSetMeansOffAndQuiet) {
  const Settings settings = allowed({});
  EXPECT_EQ(settings.mode, Mode::kOff);
  EXPECT_EQ(settings.trace_path, "");
  EXPECT_EQ(settings.plan_path, "");
  EXPECT_EQ(settings.report.kind, ReportTarget::Kind::kStderr);
  EXPECT_FALSE(settings.strict);
  EXPECT_EQ(settings.log_level, LogLevel::kWarning);
}

TEST(Settings, EmptyMeansTheSameAsUnset) {
  const Settings settings = allowed({{"EBBTIDE", ""}, {"EBBTIDE_TRACE", ""}, {"EBBTIDE_PLAN", ""},
                                     {"EBBTIDE_REPORT", ""}, {"EBBTIDE_STRICT", ""}, {"EBBTIDE_LOG", ""}});
  EXPECT_EQ(settings.mode, Mode::kOff);
  EXPECT_EQ(settings.report.kind, ReportTarget::Kind::kStderr);
  EXPECT_FALSE(settings.strict);
  EXPECT_EQ(settings.log_level, LogLevel::kWarning);
  EXPECT_EQ(settings.trace_path, "");
}

TEST(Settings, CuptiIsOffOnOrALibrary) {
  EXPECT_FALSE(allowed({}).cupti.is_on);
  EXPECT_FALSE(allowed({{"EBBTIDE_CUPTI", "0"}}).cupti.is_on);
  EXPECT_TRUE(allowed({{"EBBTIDE_CUPTI", "1"}}).cupti.is_on);
  EXPECT_EQ(allowed({{"EBBTIDE_CUPTI", "1"}}).cupti.library, "");
  EXPECT_EQ(allowed({{"EBBTIDE_CUPTI", "./libcupti.so.13"}}).cupti.library, "./libcupti.so.13");
  expect_refused("EBBTIDE_CUPTI", "yes", {"0", "1", "path"});
}

TEST(Settings, ModeIsOneOfThree) {
  EXPECT_EQ(allowed({{"EBBTIDE", "0"}}).mode, Mode::kOff);
  EXPECT_EQ(allowed({{"EBBTIDE", "1"}}).mode, Mode::kServe);
  EXPECT_EQ(allowed({{"EBBTIDE", "observe"}}).mode, Mode::kObserve);
  for (const char* wrong : {"2", "yes", "Observe", " 1", "1 "}) {
    expect_refused("EBBTIDE", wrong, {"0", "1", "observe"});
  }
}

TEST(Settings, OffloadIsOffChosenByARuleOrAShare) {
  using Kind = OffloadTarget::Kind;
  EXPECT_EQ(allowed({}).offload.kind, Kind::kOff);
  EXPECT_EQ(allowed({{"EBBTIDE_OFFLOAD", "off"}}).offload.kind, Kind::kOff);
  EXPECT_EQ(allowed({{"EBBTIDE_OFFLOAD", "auto"}}).offload.kind, Kind::kAuto);
  EXPECT_EQ(allowed({{"EBBTIDE_OFFLOAD", "memo"}}).offload.kind, Kind::kMemo);
  EXPECT_EQ(allowed({{"EBBTIDE_OFFLOAD", " AUTO "}}).offload.kind, Kind::kAuto);
  EXPECT_EQ(allowed({{"EBBTIDE_OFFLOAD", "  "}}).offload.kind, Kind::kOff);
  for (const auto& [text, share] : std::map<std::string, double>{{"0", 0}, {"0.0", 0}, {"0.125", 0.125}, {"1.0", 1}}) {
    const OffloadTarget target = allowed({{"EBBTIDE_OFFLOAD", text}}).offload;
    EXPECT_EQ(target.kind, Kind::kShare) << text;
    EXPECT_EQ(target.share, share) << text;
  }
  for (const char* wrong : {"1.5", "-0.1", "half", "0.5x", "nan"}) expect_refused("EBBTIDE_OFFLOAD", wrong, {"off", "auto", "memo", "0 to 1"});
}

TEST(Settings, AReportOfOutOfMemoryIsWrittenUnlessOff) {
  EXPECT_FALSE(allowed({}).out_of_memory.is_off);
  EXPECT_EQ(allowed({{"EBBTIDE_OOM", "auto"}}).out_of_memory.path, "ebbtide-oom-%p.txt");
  EXPECT_TRUE(allowed({{"EBBTIDE_OOM", "off"}}).out_of_memory.is_off);
  EXPECT_EQ(allowed({{"EBBTIDE_OOM", "runs/%p.txt"}}).out_of_memory.path, "runs/%p.txt");
  for (const char* wrong : {"1", ".txt", "oom.json", "OFF"}) expect_refused("EBBTIDE_OOM", wrong, {"auto", "off", ".txt"});
}

TEST(Settings, BudgetsAreSizes) {
  EXPECT_FALSE(allowed({}).host_budget.has_value());
  EXPECT_EQ(allowed({{"EBBTIDE_HOST", "120GiB"}}).host_budget, Bytes{120 * kGiB.value});
  EXPECT_EQ(allowed({{"EBBTIDE_HBM", "1.5 GB"}}).device_budget, Bytes{1500000000});
  EXPECT_EQ(allowed({{"EBBTIDE_HBM", "4096"}}).device_budget, Bytes{4096});
  for (const char* name : {"EBBTIDE_HBM", "EBBTIDE_HOST"}) {
    for (const char* wrong : {"lots", "-1GiB", "12 apples", "GiB"}) expect_refused(name, wrong, {"120GiB"});
  }
}

TEST(Settings, ABudgetOfLessThanAPageHasLostItsUnit) {
  const auto refused = Settings::read([](const char* name) { return std::string_view(name) == "EBBTIDE_HOST" ? "110" : nullptr; });
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "EBBTIDE_HOST=110: that is 110 bytes; did you mean 110GiB?");
  EXPECT_EQ(allowed({{"EBBTIDE_HBM", "0"}}).device_budget, Bytes{0});
}

TEST(Settings, StrictIsZeroOrOne) {
  EXPECT_FALSE(allowed({{"EBBTIDE_STRICT", "0"}}).strict);
  EXPECT_TRUE(allowed({{"EBBTIDE_STRICT", "1"}}).strict);
  expect_refused("EBBTIDE_STRICT", "true", {"0", "1"});
}

TEST(Settings, LogLevelIsOneOfThree) {
  EXPECT_EQ(allowed({{"EBBTIDE_LOG", "warning"}}).log_level, LogLevel::kWarning);
  EXPECT_EQ(allowed({{"EBBTIDE_LOG", "info"}}).log_level, LogLevel::kInfo);
  EXPECT_EQ(allowed({{"EBBTIDE_LOG", "debug"}}).log_level, LogLevel::kDebug);
  expect_refused("EBBTIDE_LOG", "verbose", {"warning", "info", "debug"});
}

TEST(Settings, ReportGoesToStderrNowhereOrAFileOfAKnownKind) {
  EXPECT_EQ(allowed({{"EBBTIDE_REPORT", "stderr"}}).report.kind, ReportTarget::Kind::kStderr);
  EXPECT_EQ(allowed({{"EBBTIDE_REPORT", "off"}}).report.kind, ReportTarget::Kind::kOff);
  const ReportTarget text = allowed({{"EBBTIDE_REPORT", "runs/a.txt"}}).report;
  EXPECT_EQ(text.kind, ReportTarget::Kind::kText);
  EXPECT_EQ(text.path, "runs/a.txt");
  const ReportTarget json = allowed({{"EBBTIDE_REPORT", "a.json"}}).report;
  EXPECT_EQ(json.kind, ReportTarget::Kind::kJson);
  EXPECT_EQ(json.path, "a.json");
  for (const char* wrong : {"stdout", "a.pdf", ".txt", "a.txt "}) {
    expect_refused("EBBTIDE_REPORT", wrong, {"stderr", "off", ".txt", ".json"});
  }
}

TEST(Settings, StacksInATraceAreOfPythonOfCppOrOfBoth) {
  EXPECT_EQ(allowed({}).trace_stacks, TraceStacks::kOff);
  EXPECT_EQ(allowed({{"EBBTIDE_TRACE_STACKS", "off"}}).trace_stacks, TraceStacks::kOff);
  EXPECT_EQ(allowed({{"EBBTIDE_TRACE_STACKS", "python"}}).trace_stacks, TraceStacks::kPython);
  EXPECT_EQ(allowed({{"EBBTIDE_TRACE_STACKS", "cpp"}}).trace_stacks, TraceStacks::kCpp);
  EXPECT_EQ(allowed({{"EBBTIDE_TRACE_STACKS", "all"}}).trace_stacks, TraceStacks::kAll);
  expect_refused("EBBTIDE_TRACE_STACKS", "1", {"off", "python", "cpp", "all"});
}

TEST(Settings, PathsAreTakenAsTheyAre) {
  const Settings settings = allowed({{"EBBTIDE_TRACE", "a b.ebb"}, {"EBBTIDE_PLAN", "../p.plan"}});
  EXPECT_EQ(settings.trace_path, "a b.ebb");
  EXPECT_EQ(settings.plan_path, "../p.plan");
}

TEST(Settings, NoOtherVariableIsAskedFor) {
  std::vector<std::string> asked;
  static_cast<void>(Settings::read([&](const char* name) -> const char* {
    asked.push_back(name);
    return nullptr;
  }));
  std::sort(asked.begin(), asked.end());
  const std::vector<std::string> known{"EBBTIDE",      "EBBTIDE_CUPTI",  "EBBTIDE_HBM",  "EBBTIDE_HOST",
                                       "EBBTIDE_LOG",  "EBBTIDE_OFFLOAD", "EBBTIDE_OOM",
                                       "EBBTIDE_PLAN", "EBBTIDE_REPORT", "EBBTIDE_STRICT", "EBBTIDE_TRACE",
                                       "EBBTIDE_TRACE_STACKS"};
  EXPECT_EQ(asked, known);
}

}  // namespace
}  // namespace ebbtide
