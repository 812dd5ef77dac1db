#include "profiler/report_text.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace ebbtide {
namespace {

DeviceReport good_run() {
  DeviceReport report;
  report.serving = true;
  report.peak_live = {100 * kGiB.value};
  report.reserved = {101 * kGiB.value};
  report.peak_reserved = {102 * kGiB.value};
  report.observed_peak_reserved = {120 * kGiB.value};
  report.all = {10'000, {1000 * kGiB.value}};
  report.planned = {9'000, {950 * kGiB.value}};
  report.settled = {8'000, {800 * kGiB.value}};
  report.settled_planned = {7'999, {800 * kGiB.value}};
  report.divergences = {7, 5, 0, 1};
  report.first_divergence = "4.00 KiB in round 3, where none was expected";
  report.plans = 2;
  report.programs = 1;
  report.rounds = 20;
  return report;
}

TEST(ReportText, OfAGoodRun) {
  EXPECT_EQ(five_line_report(good_run()),
            "ebbtide report (cuda:0, plan in force): peak live 100.00 GiB\n"
            "  peak reserved 102.00 GiB, fragmentation 2.0 %\n"
            "  served by the plan: 95.0 % of bytes, 90.0 % of allocations; "
            "after warm-up 100.0 % and 99.9 %\n"
            "  divergences: 13 (7 unexpected, 5 outgrown, 1 no memory); the first: "
            "4.00 KiB in round 3, where none was expected\n"
            "  saved: 19.00 GiB; the native allocator's own peak while observing was 120.00 GiB, "
            "now 101.00 GiB are held\n");
}

TEST(ReportText, OfARunThatWasTooShort) {
  DeviceReport report;
  report.device = -1;
  report.peak_live = {3 * kMiB.value};
  report.all = {3, {3 * kMiB.value}};
  report.rounds = 1;
  EXPECT_EQ(five_line_report(report),
            "ebbtide report (cpu, no plan: fewer than two iterations were seen): "
            "peak live 3.00 MiB\n"
            "  peak reserved: not measured\n"
            "  served by the plan: nothing\n"
            "  divergences: none\n"
            "  saved: nothing, as no plan was in force\n");
}

TEST(ReportText, OfALoadedPlan) {
  DeviceReport report = good_run();
  report.plan_was_loaded = true;
  report.observed_peak_reserved = {0};
  report.divergences = {};
  report.settled = {};
  report.lost_events = 4;
  EXPECT_EQ(five_line_report(report),
            "ebbtide report (cuda:0, plan in force): peak live 100.00 GiB; 4 trace events were "
            "lost\n"
            "  peak reserved 102.00 GiB, fragmentation 2.0 %\n"
            "  served by the plan: 95.0 % of bytes, 90.0 % of allocations; "
            "nothing was allocated after warm-up\n"
            "  divergences: none\n"
            "  saved: not known, as the plan was loaded\n");
}

TEST(ReportText, SaysWhyThereIsNoPlan) {
  DeviceReport report;
  const auto first_line = [&] {
    const std::string text = five_line_report(report);
    return text.substr(0, text.find(')') + 1);
  };
  EXPECT_EQ(first_line(), "ebbtide report (cuda:0, no plan: nothing was allocated)");
  report.all.requests = 1;
  report.rounds = 9;
  EXPECT_EQ(first_line(),
            "ebbtide report (cuda:0, no plan: no repetition was found in 9 iterations)");
  report.programs = 1;
  EXPECT_EQ(first_line(), "ebbtide report (cuda:0, no plan: none was ready before the end)");
  report.plans = 1;
  EXPECT_EQ(first_line(), "ebbtide report (cuda:0, no plan: the last one was given up)");
  report.observe_only = true;
  EXPECT_EQ(first_line(),
            "ebbtide report (cuda:0, no plan: only observing, as EBBTIDE=observe asks)");
}

TEST(ReportText, NothingSavedIsSaidSo) {
  DeviceReport report = good_run();
  report.reserved = {130 * kGiB.value};
  const std::string text = five_line_report(report);
  EXPECT_NE(text.find("  saved: nothing; the native allocator's own peak while observing was "
                      "120.00 GiB, now 130.00 GiB are held\n"),
            std::string::npos);
}

TEST(ReportText, WhatWasNotObservedIsNotClaimed) {
  DeviceReport report = good_run();
  report.observed_peak_reserved = {0};
  EXPECT_NE(five_line_report(report).find(
                "  saved: not known, as no whole iteration was observed before the plan\n"),
            std::string::npos);
}

TEST(ReportText, AlmostAllIsNotAll) {
  DeviceReport report = good_run();
  report.planned.bytes = report.all.bytes - Bytes{1};
  EXPECT_NE(five_line_report(report).find("99.9 % of bytes"), std::string::npos);
}

TEST(ReportText, HasFiveLinesWhateverTheCauseSays) {
  DeviceReport report = good_run();
  report.first_divergence = "two\nlines";
  const std::string text = five_line_report(report);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5);
}

}  // namespace
}  // namespace ebbtide
