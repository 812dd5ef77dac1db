// A session's numbers in a few lines of text.
#include <cstdio>
#include <string>
#include <vector>

#include "hooks/torch_offload/state.h"

namespace ebbtide::offload {
namespace {

// "27.18 GiB", "512 B".
std::string size_text(std::int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) value /= 1024, ++unit;
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return text;
}

std::string seconds_text(std::int64_t ns) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f s", static_cast<double>(ns) / 1e9);
  return text;
}

// Why alpha is not larger.
std::string limit_text(const std::string& limit) {
  if (limit == "link") return ": the link carries no more during a layer's forward";
  if (limit == "host") return ": the host budget holds no more";
  if (limit == "device") return ": a larger one does not fit the device";
  return limit == "time" ? ": more gained nothing" : "";
}

// What the address planner says of a choice.
std::string plan_line(const StepPlan& plan) {
  if (plan.height_bytes == 0) return "  its steps have no plan yet that could confirm the choice\n";
  return "  planned height " + size_text(plan.height_bytes) + " of budget " +
         size_text(plan.budget_bytes) + (plan.fits() ? "\n" : ": does not fit\n");
}

std::string per_call(const LayerStats& layer) {
  const std::int64_t calls = layer.calls > 0 ? layer.calls : 1;
  return "kept " + size_text(layer.kept_bytes / calls) + ", swapped " +
         size_text(layer.swapped_bytes / calls) + ", recomputed " +
         size_text(layer.recomputed_bytes / calls);
}

std::string layer_lines(const std::vector<LayerStats>& layers) {
  std::string text;
  for (std::size_t first = 0, end = 0; first < layers.size(); first = end) {
    const std::string same = per_call(layers[first]);
    end = first + 1;
    while (end < layers.size() && per_call(layers[end]) == same) ++end;
    text += "  layer " + std::to_string(first);
    if (end > first + 1) text += " to " + std::to_string(end - 1);
    text += ": " + same + "\n";
  }
  return text;
}

std::string host_lines(const HostStats& host) {
  std::string text = "  host memory: peak " + size_text(host.peak_live_bytes) + " of " +
                     size_text(host.pinned_bytes) + " pinned, budget " +
                     size_text(host.budget_bytes) + "; " + size_text(host.swapped_out_bytes) +
                     " out, " + size_text(host.swapped_in_bytes) + " back";
  if (host.refusals > 0) text += "; " + std::to_string(host.refusals) + " times there was no room";
  return text + "\n  copies: " + seconds_text(host.hidden_ns) + " hidden, " +
         seconds_text(host.exposed_ns) + " not hidden\n";
}

}  // namespace

std::string Session::report() const {
  const Stats found = stats();
  char alpha[32];
  std::snprintf(alpha, sizeof(alpha), "%g", found.alpha);
  std::string text = "ebbtide offload (" + std::to_string(found.layers.size()) + " layers, alpha " +
                     alpha + limit_text(found.alpha_limit) + "): head and loss " + (found.head_calls > 0 ? "in pieces" : "whole") +
                     "; a call saves\n" + layer_lines(found.layers);
  if (found.plan) text += plan_line(*found.plan);
  if (found.tagged_bytes > 0) text += "  SaveOnHost: " + size_text(found.tagged_bytes) + "\n";
  return found.host ? text + host_lines(*found.host) : text;
}

}  // namespace ebbtide::offload
