#include "allocator/plan/layers.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include "allocator/plan/repeats.h"

namespace ebbtide {
namespace {

class LayerFinder {
 public:
  explicit LayerFinder(const Instance& instance)
      : problem_(instance.buffers), sections_(instance.sections) {}

  Layers find() {
    sort_births();
    for (const Repeat& repeat : find_repeats(tokens())) cut(repeat);
    collect();
    classify();
    return std::move(found_);
  }

 private:
  SectionRange range_of(std::uint32_t b) const { return sections_.of(b).front(); }

  // What makes a buffer the same in another layer, its time relative to the section `from`.
  auto key_of(std::uint32_t b, std::uint32_t from) const {
    const SectionRange range = range_of(b);
    return std::tuple(range.first - from, range.last - from, problem_.sizes[b],
                      problem_.alignments[b]);
  }

  // By first section; within it in an order that does not depend on the indices.
  void sort_births() {
    std::vector<std::uint32_t> starts(sections_.count() + 1, 0);  // of each section in births_
    const auto is_born = [&](std::uint32_t b) { return !sections_.of(b).empty(); };
    for (std::uint32_t b = 0; b < problem_.count(); ++b) {
      if (is_born(b)) ++starts[range_of(b).first + 1];
    }
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    births_.resize(starts.back());
    std::vector<std::uint32_t> next = starts;
    for (std::uint32_t b = 0; b < problem_.count(); ++b) {
      if (is_born(b)) births_[next[range_of(b).first]++] = b;
    }
    for (std::uint32_t s = 0; s < sections_.count(); ++s) {
      std::sort(births_.begin() + starts[s], births_.begin() + starts[s + 1],
                [&](std::uint32_t a, std::uint32_t b) {
                  return std::tuple(problem_.sizes[a], problem_.alignments[a], range_of(a).last) <
                         std::tuple(problem_.sizes[b], problem_.alignments[b], range_of(b).last);
                });
    }
  }

  // Size, alignment and the time since the birth before. Not how long it lives: what a layer keeps
  // for its backward lives for less in every next one.
  std::vector<std::uint64_t> tokens() const {
    std::vector<std::uint64_t> tokens;
    tokens.reserve(births_.size());
    std::uint32_t before = 0;
    for (const std::uint32_t b : births_) {
      const std::uint32_t first = range_of(b).first;
      auto token = static_cast<std::uint64_t>(problem_.sizes[b]) * 0x9e3779b97f4a7c15ULL;
      token ^= static_cast<std::uint64_t>(problem_.alignments[b]) * 0xc2b2ae3d27d4eb4fULL;
      token ^= (first - before) * 0x165667b19e3779f9ULL;
      tokens.push_back(token ^ (token >> 31));
      before = first;
    }
    return tokens;
  }

  std::uint32_t section_at(std::size_t birth) const {
    return birth < births_.size() ? range_of(births_[birth]).first : sections_.count();
  }

  // Cuts the repeat into layers where the fewest bytes of buffers that are shorter than a layer
  // live on both sides.
  void cut(const Repeat& repeat) {
    const std::uint32_t first = section_at(repeat.first);
    const std::uint32_t last = section_at(repeat.first + repeat.length);
    const auto width = static_cast<std::uint32_t>((last - first) * repeat.period / repeat.length);
    if (width == 0) return;
    std::vector<std::int64_t> crossing(last - first + 1, 0);  // before section first + i
    for (std::size_t i = repeat.first; i < repeat.first + repeat.length; ++i) {
      const SectionRange range = range_of(births_[i]);
      if (range.last - range.first > width || range.first >= last) continue;
      crossing[range.first + 1 - first] += problem_.sizes[births_[i]];
      if (range.last < last) crossing[range.last - first] -= problem_.sizes[births_[i]];
    }
    std::partial_sum(crossing.begin(), crossing.end(), crossing.begin());
    std::vector<double> costs(repeat.period, 0);
    for (std::size_t i = 0; i < repeat.length; ++i) {
      costs[i % repeat.period] +=
          static_cast<double>(crossing[section_at(repeat.first + i) - first]);
    }
    const auto phase =
        static_cast<std::size_t>(std::min_element(costs.begin(), costs.end()) - costs.begin());
    for (std::size_t i = phase; i + repeat.period <= repeat.length; i += repeat.period) {
      const SectionRange layer{section_at(repeat.first + i),
                               section_at(repeat.first + i + repeat.period)};
      const bool is_after =
          found_.layers.empty() || found_.layers.back().sections.last <= layer.first;
      if (layer.first < layer.last && is_after) found_.layers.push_back({layer, {}, 0});
    }
  }

  // The buffers inside each layer.
  void collect() {
    auto& layers = found_.layers;
    auto layer = layers.begin();
    for (const std::uint32_t b : births_) {
      const SectionRange range = range_of(b);
      while (layer != layers.end() && layer->sections.last <= range.first) ++layer;
      if (layer == layers.end()) break;
      const bool is_inside = range.first >= layer->sections.first &&
                             range.last <= layer->sections.last && sections_.of(b).size() == 1 &&
                             problem_.fixed[b] == CompactProblem::kFree;
      if (is_inside) layer->buffers.push_back(b);
    }
    std::erase_if(layers, [](const Layer& one) { return one.buffers.size() < 2; });
    for (Layer& one : layers) {
      one.sections = range_of(one.buffers.front());
      for (const std::uint32_t b : one.buffers) {
        one.sections.last = std::max(one.sections.last, range_of(b).last);
      }
    }
  }

  bool are_equal(const Layer& a, const Layer& b) const {
    return std::ranges::equal(a.buffers, b.buffers, [&](std::uint32_t x, std::uint32_t y) {
      return key_of(x, a.sections.first) == key_of(y, b.sections.first);
    });
  }

  void classify() {
    std::unordered_multimap<std::uint64_t, const Layer*> known;  // one of each kind, by hash
    for (Layer& layer : found_.layers) {
      std::uint64_t hash = layer.buffers.size();
      for (const std::uint32_t b : layer.buffers) {
        const auto [first, last, size, alignment] = key_of(b, layer.sections.first);
        for (const std::uint64_t part :
             {std::uint64_t{first}, std::uint64_t{last}, static_cast<std::uint64_t>(size),
              static_cast<std::uint64_t>(alignment)}) {
          hash = (hash ^ part) * 0x9e3779b97f4a7c15ULL;
          hash ^= hash >> 29;
        }
      }
      const auto [begin, end] = known.equal_range(hash);
      const auto same = std::find_if(
          begin, end, [&](const auto& entry) { return are_equal(*entry.second, layer); });
      layer.kind = same == end ? found_.kinds++ : same->second->kind;
      if (same == end) known.emplace(hash, &layer);
    }
  }

  const CompactProblem& problem_;
  const Sections& sections_;
  std::vector<std::uint32_t> births_;  // the buffers that take room, in order of birth
  Layers found_;
};

}  // namespace

Layers find_layers(const Instance& instance) { return LayerFinder(instance).find(); }

}  // namespace ebbtide
