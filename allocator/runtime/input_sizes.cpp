#include "allocator/runtime/input_sizes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "allocator/runtime/size_stairs.h"

namespace ebbtide {
namespace {

constexpr std::size_t kBatch = 0;       // pieces are cut from it
constexpr std::size_t kLength = 1;      // and it
constexpr int kMaxPower = 2;            // of one extent: masks grow with the square of the length
constexpr int kMaxDegree = 3;           // of all together, where no more than two vary
constexpr std::int64_t kLong = 64;      // from here on kernels pad an extent
constexpr std::int64_t kTellingOdd = 512;  // the least odd part of an extent that divides no size by chance
constexpr std::int64_t kRareOdd = 64;   // from here on it divides few sizes by chance
constexpr std::array<std::int64_t, 8> kPaddings{2, 4, 8, 16, 32, 64, 128, 256};
constexpr double kRounding = 1e-3;
constexpr double kSameFactor = 0.01;    // kernels pad, statistics round up

std::int64_t odd_part(std::int64_t extent) { return extent / (extent & -extent); }

int degree(const std::vector<int>& exponents) { return std::accumulate(exponents.begin(), exponents.end(), 0); }

}  // namespace

InputSizes::InputSizes(const Program& program, const Extents& input) : program_(program), inputs_(program, input) {
  if (!says_something()) return;
  add_growths({});
  std::stable_sort(growths_.begin(), growths_.end(), [this](const Growth& a, const Growth& b) {
    return likelihood(a) > likelihood(b);
  });
  judge_plainness();
}

// Most tensors have an element, or some, for each token: every extent once. Then what grows fastest.
int InputSizes::likelihood(const Growth& growth) const {
  const bool is_plain = std::all_of(growth.exponents.begin(), growth.exponents.end(), [](int power) { return power == 1; });
  return is_plain ? max_degree() + 1 : degree(growth.exponents);
}

// All of them once, and one of them twice: a film has so many clips of so many frames, as wide as they are high.
int InputSizes::max_degree() const { return std::max(kMaxDegree, static_cast<int>(varying().size()) + 1); }

void InputSizes::add_growths(std::vector<int> exponents) {
  if (exponents.size() == varying().size()) {
    growths_.push_back({std::move(exponents), 1, std::nullopt, std::nullopt});
    return;
  }
  const int left = max_degree() - degree(exponents);
  exponents.push_back(0);
  for (int power = 0; power <= std::min(left, kMaxPower); ++power) {
    exponents.back() = power;
    add_growths(exponents);
  }
}

std::int64_t InputSizes::padded(std::int64_t extent, const Growth& growth, std::size_t v) {
  const bool stays = extent < kLong || (growth.padded && *growth.padded != v);
  return stays ? extent : align_up(extent, growth.padding);
}

// What an extent's first power counts as.
std::int64_t InputSizes::first_power(const Extents& extents, const Growth& growth, std::size_t v) const {
  if (growth.piece && varying()[v] == kLength) return -extents[*growth.piece];
  if (growth.piece && varying()[v] == kBatch) return 1;
  return padded(extents[varying()[v]], growth, v);
}

double InputSizes::product(const Extents& extents, const Growth& growth) const {
  double product = 1;
  for (std::size_t v = 0; v < varying().size(); ++v) {
    const std::int64_t extent = extents[varying()[v]];
    if (growth.exponents[v] >= 1) product *= static_cast<double>(first_power(extents, growth, v));
    if (growth.exponents[v] >= 2) product *= static_cast<double>(extent);
  }
  return product;
}

// A tensor of n x m elements has a size that both n and m divide. Powers of two divide too much to tell of squares.
bool InputSizes::divides(std::uint32_t size_class, const Growth& growth) const {
  for (std::size_t v = 0; v < varying().size(); ++v) {
    if (growth.exponents[v] < 2) continue;
    for (const std::size_t k : inputs_.shapes()) {
      const std::int64_t extent = inputs_.input_of(k)[varying()[v]];
      if (odd_part(extent) < kTellingOdd || odd_part(first_power(inputs_.input_of(k), growth, v)) < kTellingOdd) return false;
    }
  }
  return std::all_of(inputs_.shapes().begin(), inputs_.shapes().end(), [&](std::size_t k) {
    const double parts = static_cast<double>(program_.class_sizes[size_class][k].value) / product(inputs_.input_of(k), growth);
    return parts == std::floor(parts);
  });
}

// Where most tensors grow with the input, so will those that only a padded extent divides. Where most do not (an
// encoder's, while the decoder's length varies), it will be by chance that it does.
void InputSizes::judge_plainness() {
  Bytes plain;
  Bytes all;
  for (const Node& node : program_.nodes) {
    all += node.slot;
    if (is_plain(node.size_class)) plain += node.slot;
  }
  are_most_plain_ = plain.value * 2 >= all.value;
}

bool InputSizes::is_plain(std::uint32_t size_class) const {
  return divides(size_class, {std::vector<int>(varying().size(), 1), 1, std::nullopt, std::nullopt});
}

// An extent that divides no size is easily padded to one that divides many.
bool InputSizes::is_by_chance(const Growth& growth) const {
  if (are_most_plain_) return false;
  return std::all_of(inputs_.shapes().begin(), inputs_.shapes().end(), [&](std::size_t k) {
    std::int64_t odd = 1;
    for (std::size_t v = 0; v < varying().size(); ++v) {
      const std::int64_t extent = inputs_.input_of(k)[varying()[v]];
      if (growth.exponents[v] >= 1) odd *= odd_part(padded(extent, growth, v));
      if (growth.exponents[v] >= 2) odd *= odd_part(extent);
    }
    return odd < kRareOdd;
  });
}

// The class's size in this round if it grows so; 0 if the observed sizes do not.
Bytes InputSizes::size_by(std::uint32_t size_class, const Growth& growth) const {
  const SizeTable::Row sizes = program_.class_sizes[size_class];
  const double here = product(inputs_.input(), growth);
  double low = std::numeric_limits<double>::max();
  double high = 0;
  double nearest = 0;  // product of extents of the observed shape closest to this round
  Bytes size;
  for (const std::size_t k : inputs_.shapes()) {
    if (sizes[k].value == 0) continue;
    const double there = product(inputs_.input_of(k), growth);
    const double factor = static_cast<double>(sizes[k].value) / there;
    low = std::min(low, factor);
    high = std::max(high, factor);
    if (size.value != 0 && std::abs(std::log(there / here)) >= std::abs(std::log(nearest / here))) continue;
    nearest = there;
    size = Bytes{align_up(static_cast<std::int64_t>(std::ceil(factor * here - kRounding)), kSizeGrain)};
  }
  return high - low <= kSameFactor * high ? size : Bytes{};
}

// What leaves no remainder with these powers: the extents themselves, pieces of them, or the extents with the least padding.
// A whole number of pieces may be the whole length, and the other way round.
std::vector<InputSizes::Growth> InputSizes::divisors(std::uint32_t size_class, const std::vector<int>& exponents) const {
  std::vector<Growth> found;
  const Growth plain{exponents, 1, std::nullopt, std::nullopt};
  if (divides(size_class, plain)) found.push_back(plain);
  for (std::size_t p = inputs_.pieces_begin(); p < inputs_.input().size() && is_of_tokens(exponents); ++p) {
    const Growth piece{exponents, 1, std::nullopt, p};
    if (divides(size_class, piece)) found.push_back(piece);
  }
  std::stable_sort(found.begin(), found.end(), [this](const Growth& a, const Growth& b) { return least_odd_part(a) > least_odd_part(b); });
  if (!found.empty()) return found;
  const std::optional<Growth> padded = padded_divisor(size_class, exponents);
  if (padded && !is_by_chance(*padded)) found.push_back(*padded);
  return found;
}

// The larger it is, the less likely a growth divides by chance.
std::int64_t InputSizes::least_odd_part(const Growth& growth) const {
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (std::size_t v = 0; v < varying().size(); ++v) {
    if (growth.exponents[v] == 0 || (growth.piece && varying()[v] == kBatch)) continue;
    for (const std::size_t k : inputs_.shapes()) least = std::min(least, odd_part(first_power(inputs_.input_of(k), growth, v)));
  }
  return least;
}

// So much of something for each token of each sequence.
bool InputSizes::is_of_tokens(const std::vector<int>& exponents) const {
  bool has_length = false;
  for (std::size_t v = 0; v < varying().size(); ++v) {
    const bool is_token = varying()[v] == kBatch || varying()[v] == kLength;
    if (exponents[v] != (is_token ? 1 : 0)) return false;
    has_length = has_length || varying()[v] == kLength;
  }
  return has_length;
}

// Kernels pad the length, and seldom the batch, too.
std::optional<InputSizes::Growth> InputSizes::padded_divisor(std::uint32_t size_class, const std::vector<int>& exponents) const {
  for (const std::int64_t padding : kPaddings) {
    for (std::size_t v = exponents.size(); v-- > 0;) {
      const Growth one{exponents, padding, v, std::nullopt};
      if (exponents[v] > 0 && divides(size_class, one)) return one;
    }
    const Growth every{exponents, padding, std::nullopt, std::nullopt};
    if (divides(size_class, every)) return every;
  }
  return std::nullopt;
}

InputSizes::Candidates InputSizes::candidates(std::uint32_t size_class) const {
  const SizeTable::Row sizes = program_.class_sizes[size_class];
  for (const std::size_t k : inputs_.shapes()) {
    if (inputs_.input_of(k) == inputs_.input() && sizes[k].value != 0) return {{sizes[k]}, true};
  }
  std::vector<Growth> fitting;
  std::vector<Growth> others;
  for (const Growth& growth : growths_) {
    const std::vector<Growth> found = divisors(size_class, growth.exponents);
    if (found.empty()) others.push_back(growth);
    fitting.insert(fitting.end(), found.begin(), found.end());
  }
  // A square that divides the size is no chance either.
  std::stable_partition(fitting.begin(), fitting.end(), [](const Growth& growth) {
    return std::find(growth.exponents.begin(), growth.exponents.end(), kMaxPower) != growth.exponents.end();
  });
  const std::vector<bool> needed = needed_extents(fitting);
  Candidates result;
  // (Two samples in which three extents vary agree on much by chance.)
  const auto needed_samples = std::max<std::ptrdiff_t>(2, static_cast<std::ptrdiff_t>(varying().size()));
  const auto samples = std::count_if(inputs_.shapes().begin(), inputs_.shapes().end(), [&](std::size_t k) { return sizes[k].value != 0; });
  result.proven = samples >= needed_samples || std::find(needed.begin(), needed.end(), true) != needed.end();
  const bool is_of_piece = std::any_of(fitting.begin(), fitting.end(), [](const Growth& growth) { return growth.piece.has_value(); });
  if (!is_of_piece) result.sizes = stairs(size_class);
  fitting.insert(fitting.end(), others.begin(), others.end());
  for (const Growth& growth : fitting) {
    bool has_needed = true;
    for (std::size_t v = 0; v < needed.size(); ++v) has_needed = has_needed && (!needed[v] || growth.exponents[v] > 0);
    const Bytes size = has_needed ? size_by(size_class, growth) : Bytes{};
    const bool is_new = std::find(result.sizes.begin(), result.sizes.end(), size) == result.sizes.end();
    if (size.value != 0 && is_new) result.sizes.push_back(size);
  }
  return result;
}

std::vector<Bytes> InputSizes::stairs(std::uint32_t size_class) const {
  const auto elements = [this](const Extents& extents) {
    std::int64_t product = 1;
    for (const std::size_t v : varying()) product *= extents[v];
    return product;
  };
  std::vector<SizeSample> samples;
  for (const std::size_t k : inputs_.shapes()) {
    const Bytes size = program_.class_sizes[size_class][k];
    if (size.value != 0) samples.push_back({elements(inputs_.input_of(k)), size});
  }
  return sizes_on_stairs(samples, elements(inputs_.input()));
}

std::vector<bool> InputSizes::needed_extents(const std::vector<Growth>& fitting) const {
  std::vector<bool> needed(varying().size());
  for (const Growth& growth : fitting) {
    for (std::size_t v = 0; v < varying().size(); ++v) {
      const bool tells = std::any_of(inputs_.shapes().begin(), inputs_.shapes().end(), [&](std::size_t k) {
        return odd_part(first_power(inputs_.input_of(k), growth, v)) >= kTellingOdd;
      });
      if (growth.exponents[v] > 0 && tells) needed[v] = true;
    }
  }
  return needed;
}

}  // namespace ebbtide
