#include "allocator/runtime/size_stairs.h"

#include <algorithm>
#include <array>
#include <optional>

namespace ebbtide {
namespace {

constexpr std::array<std::int64_t, 6> kSteps{8192, 4096, 2048, 1024, 512, 256};

// Zero where the smallest size was seen once only, or of one number of elements.
Bytes floor_of(std::span<const SizeSample> samples) {
  const auto by_size = [](const SizeSample& a, const SizeSample& b) { return a.size < b.size; };
  const SizeSample& least = *std::min_element(samples.begin(), samples.end(), by_size);
  const bool repeats = std::any_of(samples.begin(), samples.end(), [&](const SizeSample& sample) {
    return sample.size == least.size && sample.elements != least.elements;
  });
  return repeats ? least.size : Bytes{};
}

// Bytes for each element at this step, if all samples above the floor agree.
std::optional<std::int64_t> factor_of(std::span<const SizeSample> samples, Bytes floor, std::int64_t step) {
  std::int64_t factor = 0;
  std::int64_t agreeing = floor.value > 0 ? 1 : 0;
  Bytes last = floor;
  for (const SizeSample& sample : samples) {
    if (sample.size == floor) continue;
    const std::int64_t rounded = align_up(sample.elements, step);
    if (sample.size.value % rounded != 0) return std::nullopt;
    const std::int64_t here = sample.size.value / rounded;
    if (factor != 0 && here != factor) return std::nullopt;
    factor = here;
    agreeing += sample.size != last ? 1 : 0;
    last = sample.size;
  }
  if (agreeing < 2 || factor == 0) return std::nullopt;
  return factor;
}

}  // namespace

std::vector<Bytes> sizes_on_stairs(std::span<const SizeSample> samples, std::int64_t elements) {
  std::vector<Bytes> sizes;
  if (samples.empty()) return sizes;
  const Bytes floor = floor_of(samples);
  for (const std::int64_t step : kSteps) {
    const std::optional<std::int64_t> factor = factor_of(samples, floor, step);
    if (!factor) continue;
    const Bytes size = std::max(floor, Bytes{*factor * align_up(elements, step)});
    if (std::find(sizes.begin(), sizes.end(), size) == sizes.end()) sizes.push_back(size);
  }
  return sizes;
}

}  // namespace ebbtide
