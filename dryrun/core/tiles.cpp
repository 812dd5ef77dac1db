#include "dryrun/core/tiles.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace ebbtide::dryrun {

namespace {

struct Tile {
  double rows, columns;
};

// The tiles that NVIDIA's guide to matrix multiplication calls the most efficient of cuBLAS's. Each
// multiprocessor works on one at a time, and the last wave takes as long as the others.
constexpr std::array<Tile, 3> kTiles{{{256, 128}, {128, 256}, {128, 128}}};
constexpr double kSmallestEdge = 16;  // of a tile, where the product itself is narrower
constexpr int kMostParts = 16;        // of a sum over k: more tiles where m and n have few
constexpr double kShortestPart = 512;
constexpr double kBytesOfPartialSum = 2 * 4;  // float32, written and read

double edge(double of_tile, double of_product) {
  return std::min(of_tile, kSmallestEdge * std::ceil(of_product / kSmallestEdge));
}

Cut cut_of(const ProductShape& shape, const Tile& most, int parts, int multiprocessors) {
  const Tile tile{edge(most.rows, shape.m), edge(most.columns, shape.n)};
  const double tiles =
      std::ceil(shape.m / tile.rows) * std::ceil(shape.n / tile.columns) * shape.batch * parts;
  const double in_waves = std::ceil(tiles / multiprocessors) * multiprocessors;
  const double length = std::ceil(shape.k / parts);
  Cut cut;
  cut.busy =
      in_waves * tile.rows * tile.columns * length / (shape.m * shape.n * shape.k * shape.batch);
  if (parts > 1) cut.partial_bytes = kBytesOfPartialSum * shape.m * shape.n * shape.batch * parts;
  return cut;
}

}  // namespace

Cut best_cut(const ProductShape& shape, int multiprocessors, double flops_per_second,
             double bytes_per_second) {
  if (multiprocessors <= 0 || shape.m * shape.n * shape.k * shape.batch <= 0) return {};
  const double flops = 2 * shape.m * shape.n * shape.k * shape.batch;
  Cut best;
  double least = HUGE_VAL;
  for (const Tile& tile : kTiles) {
    for (int parts = 1; parts <= kMostParts; ++parts) {
      if (parts > 1 && shape.k / parts < kShortestPart) break;
      const Cut cut = cut_of(shape, tile, parts, multiprocessors);
      const double seconds =
          flops * cut.busy / flops_per_second + cut.partial_bytes / bytes_per_second;
      if (seconds >= least) continue;
      least = seconds;
      best = cut;
    }
  }
  return best;
}

}  // namespace ebbtide::dryrun
