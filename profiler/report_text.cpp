#include "profiler/report_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace ebbtide {
namespace {

constexpr std::array<const char*, kDivergenceCount> kDivergenceNames{"unexpected", "outgrown",
                                                                     "place taken", "no memory"};

// One decimal; never "100.0 %" unless it is all.
std::string percent(std::int64_t part, std::int64_t whole) {
  if (whole <= 0 || part >= whole) return whole <= 0 ? "0.0 %" : "100.0 %";
  const double share = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  return fmt::format("{:.1f} %", std::min(share, 99.9));
}

// Requires: no plan is in force.
std::string why_no_plan(const DeviceReport& report) {
  if (report.observe_only) return "no plan: only observing, as EBBTIDE=observe asks";
  if (report.all.requests == 0) return "no plan: nothing was allocated";
  if (report.plans > 0) return "no plan: the last one was given up";
  if (report.rounds < 2) return "no plan: fewer than two iterations were seen";
  if (report.programs == 0) {
    return fmt::format("no plan: no repetition was found in {} iterations", report.rounds);
  }
  return "no plan: none was ready before the end";
}

std::string plan_state(const DeviceReport& report) {
  return report.serving ? "plan in force" : why_no_plan(report);
}

std::string live_line(const DeviceReport& report) {
  std::string line =
      fmt::format("ebbtide report ({}, {}): peak live {}", device_name(report.device),
                  plan_state(report), to_string(report.peak_live));
  if (report.lost_events > 0) {
    line += fmt::format("; {} trace events were lost", report.lost_events);
  }
  return line;
}

std::string reserved_line(const DeviceReport& report) {
  if (report.peak_reserved.value <= 0) return "  peak reserved: not measured";
  if (report.peak_live.value <= 0) {
    return fmt::format("  peak reserved {}", to_string(report.peak_reserved));
  }
  const double ratio =
      static_cast<double>(report.peak_reserved.value) / static_cast<double>(report.peak_live.value);
  return fmt::format("  peak reserved {}, fragmentation {:.1f} %", to_string(report.peak_reserved),
                     100.0 * (ratio - 1.0));
}

std::string served_line(const DeviceReport& report) {
  if (report.plans == 0) return "  served by the plan: nothing";
  std::string line = fmt::format("  served by the plan: {} of bytes, {} of allocations",
                                 percent(report.planned.bytes.value, report.all.bytes.value),
                                 percent(report.planned.requests, report.all.requests));
  if (report.settled.requests == 0) return line + "; nothing was allocated after warm-up";
  return line + fmt::format("; after warm-up {} and {}",
                            percent(report.settled_planned.bytes.value, report.settled.bytes.value),
                            percent(report.settled_planned.requests, report.settled.requests));
}

std::string divergence_line(const DeviceReport& report) {
  std::int64_t total = 0;
  std::string kinds;
  for (std::size_t i = 0; i < kDivergenceCount; ++i) {
    const std::int64_t count = report.divergences[i];
    if (count == 0) continue;
    total += count;
    kinds += fmt::format("{}{} {}", kinds.empty() ? "" : ", ", count, kDivergenceNames[i]);
  }
  if (total == 0) return "  divergences: none";
  std::string line = fmt::format("  divergences: {} ({})", total, kinds);
  if (!report.first_divergence.empty()) line += "; the first: " + report.first_divergence;
  // The cause is free text; the report stays at five lines whatever it says.
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

std::string saved_line(const DeviceReport& report) {
  if (report.plans == 0) return "  saved: nothing, as no plan was in force";
  if (report.plan_was_loaded) return "  saved: not known, as the plan was loaded";
  if (report.observed_peak_reserved.value <= 0) {
    return "  saved: not known, as no whole iteration was observed before the plan";
  }
  const Bytes saved = report.observed_peak_reserved - report.reserved;
  const std::string compared =
      fmt::format("the native allocator's own peak while observing was {}, now {} are held",
                  to_string(report.observed_peak_reserved), to_string(report.reserved));
  if (saved.value <= 0) return "  saved: nothing; " + compared;
  return fmt::format("  saved: {}; {}", to_string(saved), compared);
}

}  // namespace

std::string device_name(int device) { return device < 0 ? "cpu" : fmt::format("cuda:{}", device); }

std::string five_line_report(const DeviceReport& report) {
  return live_line(report) + '\n' + reserved_line(report) + '\n' + served_line(report) + '\n' +
         divergence_line(report) + '\n' + saved_line(report) + '\n';
}

}  // namespace ebbtide
