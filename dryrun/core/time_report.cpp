#include "dryrun/core/time_report.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

namespace ebbtide::dryrun {

namespace {

using Json = nlohmann::ordered_json;

// A model's backward takes twice its forward: what is recomputed is no use of the device (MFU, not
// HFU).
constexpr double kForwardsInStep = 3;

void add(ActivitySeconds& sum, const ActivitySeconds& seconds) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += seconds[i];
}

Step sum_of(const std::vector<Step>& steps) {
  Step sum;
  for (std::size_t i = steps.size() > 1 ? 1 : 0; i < steps.size(); ++i) {
    sum.seconds += steps[i].seconds;
    add(sum.use.busy, steps[i].use.busy);
    add(sum.use.stalled, steps[i].use.stalled);
    sum.use.starved += steps[i].use.starved;
    sum.machine += steps[i].machine;
  }
  return sum;
}

Json by_activity(const ActivitySeconds& seconds, double count) {
  Json object = Json::object();
  for (std::size_t i = 0; i < seconds.size(); ++i) object[kActivityNames[i]] = seconds[i] / count;
  return object;
}

}  // namespace

std::string time_report(Timeline& timeline) {
  const std::vector<Step> steps = timeline.steps();
  const Step total = timeline.total();
  const double count =
      steps.empty() ? 1 : static_cast<double>(std::max<std::size_t>(steps.size() - 1, 1));
  const Step sum = steps.empty() ? total : sum_of(steps);
  const double seconds = sum.seconds;
  const double device_seconds = seconds * timeline.devices_at_work();
  Json json;
  json["total_seconds"] = total.seconds;
  json["steps"] = steps.size();
  // Without a step the rest is about the whole program.
  json["step_seconds"] = steps.empty() ? Json() : Json(seconds / count);
  json["step_tokens"] = sum.machine.tokens / count;
  json["tokens_per_second"] = seconds > 0 ? sum.machine.tokens / seconds : 0;
  json["flops"] = sum.machine.flops / count;
  json["forward_flops"] = sum.machine.forward_flops / count;
  json["mfu"] = seconds > 0 ? kForwardsInStep * sum.machine.forward_peak_seconds / device_seconds : 0;
  json["hfu"] = seconds > 0 ? sum.machine.peak_seconds / device_seconds : 0;
  json["busy_seconds"] = by_activity(sum.use.busy, count);
  json["stalled_seconds"] = by_activity(sum.use.stalled, count);
  json["waiting_for_host_seconds"] = sum.use.starved / count;
  json["out_bytes"] = sum.machine.out_bytes / count;
  json["in_bytes"] = sum.machine.in_bytes / count;
  json["collectives"] = sum.machine.collectives / count;
  json["collective_seconds"] = sum.machine.collective_seconds / count;
  json["collective_bytes"] = sum.machine.collective_bytes / count;
  json["launches"] = sum.machine.launches / count;
  json["unknown_launches"] = sum.machine.unknown_launches / count;
  Json each = Json::array();
  Json each_stalled = Json::array();
  for (const Step& step : steps) {
    each.push_back(step.seconds);
    each_stalled.push_back(
        std::accumulate(step.use.stalled.begin(), step.use.stalled.end(), 0.0));
  }
  json["each_step_seconds"] = each;
  json["each_step_stalled_seconds"] = each_stalled;
  return json.dump();
}

std::string timeline_report(Timeline& timeline, MemoryCurve& memory) {
  Json spans = Json::array();
  for (const Span& span : timeline.spans()) {
    spans.push_back({{"stream", span.stream},
                     {"activity", kActivityNames[static_cast<std::size_t>(span.activity)]},
                     {"is_stall", span.is_stall},
                     {"begin", span.begin},
                     {"end", span.end},
                     {"name", span.name}});
  }
  double begin = std::numeric_limits<double>::infinity();
  for (const Json& span : spans) begin = std::min(begin, span["begin"].get<double>());
  Json samples = Json::array();
  for (const MemorySample& sample : memory.since(begin)) {
    samples.push_back({{"device", sample.device},
                       {"time", sample.time},
                       {"live", sample.live},
                       {"held", sample.held},
                       {"pinned", sample.pinned}});
  }
  return Json{{"spans", spans}, {"memory", samples}}.dump();
}

}  // namespace ebbtide::dryrun
