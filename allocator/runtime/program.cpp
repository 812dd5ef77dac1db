#include "allocator/runtime/program.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

namespace ebbtide {
namespace {

struct Sample {
  double x;
  double y;
};

Bytes rounded(double size) {
  const auto whole = static_cast<std::int64_t>(std::ceil(size - 1e-6));
  return {align_up(std::max<std::int64_t>(whole, 0), kSizeGrain)};
}

// y = c * x^e through all samples within 1 %, scaled from the sample nearest to `x`.
std::optional<double> along_monomial(const std::vector<Sample>& samples, double x, double e) {
  double low = 1e300;
  double high = 0;
  const Sample* nearest = &samples.front();
  for (const Sample& sample : samples) {
    const double c = sample.y / std::pow(sample.x, e);
    low = std::min(low, c);
    high = std::max(high, c);
    if (std::abs(sample.x - x) < std::abs(nearest->x - x)) nearest = &sample;
  }
  if (high - low > 0.01 * high) return std::nullopt;
  return nearest->y * std::pow(x / nearest->x, e);
}

// The line through the two samples around x, or through the outermost two on its side.
// Requires: at least two samples with distinct x, sorted by x.
double along_line(const std::vector<Sample>& samples, double x) {
  std::size_t right = 1;
  while (right + 1 < samples.size() && samples[right].x < x) ++right;
  const Sample& a = samples[right - 1];
  const Sample& b = samples[right];
  return a.y + (b.y - a.y) * (x - a.x) / (b.x - a.x);
}

// Two samples always lie on a line; a third one tells.
bool are_on_a_line(const std::vector<Sample>& samples) {
  if (samples.size() < 3) return false;
  const std::vector<Sample> ends{samples.front(), samples.back()};
  return std::all_of(samples.begin(), samples.end(), [&](const Sample& sample) {
    return std::abs(along_line(ends, sample.x) - sample.y) <= 0.01 * sample.y;
  });
}

std::vector<Sample> samples_of(SizeTable::Row xs, SizeTable::Row ys) {
  std::vector<Sample> samples;
  for (std::size_t k = 0; k < xs.size(); ++k) {
    if (xs[k].value == 0 || ys[k].value == 0) continue;
    samples.push_back({static_cast<double>(xs[k].value), static_cast<double>(ys[k].value)});
  }
  std::sort(samples.begin(), samples.end(), [](const Sample& a, const Sample& b) { return a.x < b.x; });
  samples.erase(std::unique(samples.begin(), samples.end(),
                            [](const Sample& a, const Sample& b) { return a.x == b.x; }),
                samples.end());
  return samples;
}

// Seen in several shapes, and of one size in all of them.
bool are_same(const std::vector<Bytes>& sizes) {
  const auto present = [](Bytes size) { return size.value != 0; };
  const auto first = std::find_if(sizes.begin(), sizes.end(), present);
  return std::count_if(sizes.begin(), sizes.end(), present) >= 2 &&
         std::all_of(first, sizes.end(), [&](Bytes size) { return size.value == 0 || size == *first; });
}

}  // namespace

void Program::rebuild_classes() {
  std::map<std::pair<std::vector<Bytes>, bool>, std::uint32_t> classes;
  class_sizes.clear(shapes);
  inputs.resize(shapes);
  constant_.clear();
  parameter_like_.clear();
  for (Node& node : nodes) {
    node.sizes.resize(shapes);
    const bool same = are_same(node.sizes);
    // Equal size says little: a parameter's gradient and an activation may coincide.
    const bool hint = node.constant_hint && (same || shapes == 1);
    const auto [entry, is_new] =
        classes.try_emplace({node.sizes, hint}, static_cast<std::uint32_t>(class_sizes.size()));
    if (is_new) {
      class_sizes.add(node.sizes);
      constant_.push_back(same || hint);
      parameter_like_.push_back(hint);
    }
    node.size_class = entry->second;
  }
  class_sizes.close();
}

bool Program::is_constant(std::uint32_t size_class) const { return constant_[size_class]; }

bool Program::is_parameter_like(std::uint32_t size_class) const { return parameter_like_[size_class]; }

bool Program::knows_such_inputs(const Extents& input) const {
  const auto is_alike = [&](const Extents& seen) {
    if (seen.empty()) return true;
    const auto both = static_cast<std::ptrdiff_t>(std::min(seen.size(), input.size()));
    return std::equal(seen.begin(), seen.begin() + both, input.begin(),
                      [](std::int64_t a, std::int64_t b) { return (a == 1) == (b == 1); });
  };
  return input.empty() || std::any_of(inputs.begin(), inputs.end(), is_alike);
}

bool Program::has_learnt(const Extents& input) const {
  return !input.empty() && std::find(learnt_inputs.begin(), learnt_inputs.end(), input) != learnt_inputs.end();
}

void Program::note_learnt(const Extents& input) {
  std::erase(learnt_inputs, input);
  learnt_inputs.push_back(input);
  if (learnt_inputs.size() > kMaxShapes) learnt_inputs.erase(learnt_inputs.begin());
}

std::vector<PlanInput> Program::plan_inputs() const {
  std::vector<PlanInput> found;
  found.reserve(nodes.size() + incoming.size());
  for (const Node& node : nodes) found.push_back({node.root, node.slot, node.death, node.unplanned});
  for (const Incoming& resident : incoming) found.push_back({resident.root, resident.size, resident.end});
  return found;
}

bool Program::is_valid() const {
  if (constant_.size() != class_sizes.size() || parameter_like_.size() != class_sizes.size() || inputs.size() != shapes) return false;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    if (node.sizes.size() != shapes || node.size_class >= class_sizes.size()) return false;
    if (node.death != kAlive && node.death <= Tick{static_cast<std::int64_t>(i)}) return false;
    for (const Bytes size : node.sizes) {
      if (size > node.slot) return false;
    }
  }
  return true;
}

Prediction predict_size(const Program& program, std::uint32_t wanted, std::uint32_t anchor, Bytes x) {
  const SizeTable::Row xs = program.class_sizes[anchor];
  const SizeTable::Row ys = program.class_sizes[wanted];
  if (program.is_constant(wanted)) return {*std::max_element(ys.begin(), ys.end()), program.shapes >= 2, 1};
  if (program.shapes == 1 && xs[0] == x && ys[0].value != 0) return {ys[0], true, 1};
  const std::vector<Sample> samples = samples_of(xs, ys);
  if (samples.empty()) return {};
  const auto at = static_cast<double>(x.value);
  const bool has_several = samples.size() >= 2;
  const double ratio = samples.back().y / samples.back().x;
  const double distance = std::max(ratio, 1 / ratio);
  for (const double exponent : {1.0, 2.0, 0.5}) {
    if (const auto size = along_monomial(samples, at, exponent)) {
      for (std::size_t k = xs.size(); k-- > 0;) {
        if (xs[k] == x && ys[k].value != 0) return {ys[k], true, distance};
      }
      return {rounded(*size), has_several, distance};
    }
  }
  return {rounded(along_line(samples, at)), are_on_a_line(samples), distance};
}

}  // namespace ebbtide
