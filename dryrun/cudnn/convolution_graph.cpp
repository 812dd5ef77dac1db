#include "dryrun/cudnn/convolution_graph.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <vector>

#include "dryrun/cudnn/data_type.h"

namespace ebbtide::dryrun {

namespace {

constexpr std::int64_t kFixedBytes = 16;
constexpr std::int64_t kChannelsAtOnce = 8;  // of numbers of two bytes
constexpr std::int64_t kTile = 128;          // rows and columns of a part of a gradient of weights
constexpr std::int64_t kPartsAtOnce = 132;   // of all such parts, about one for each multiprocessor
constexpr std::size_t kSpatial = 2;          // the first dimension behind batch and channels

enum class Direction { kForward, kData, kFilter };

// Images: batch, channels, and one to three dimensions of space; weights: channels of results, channels, a window.
struct Image {
  explicit Image(const Descriptor& tensor, bool are_weights = false)
      : sizes(tensor.numbers(CUDNN_ATTR_TENSOR_DIMENSIONS)),
        strides(tensor.numbers(CUDNN_ATTR_TENSOR_STRIDES)),
        type(tensor.enumerator(CUDNN_ATTR_TENSOR_DATA_TYPE)),
        is_of_weights(are_weights) {}

  bool is_valid() const { return sizes.size() > kSpatial && strides.size() == sizes.size(); }
  std::int64_t channels() const { return sizes[1]; }
  std::int64_t space() const {
    return std::accumulate(sizes.begin() + kSpatial, sizes.end(), std::int64_t{1}, std::multiplies<>());
  }
  bool is_float() const { return type == CUDNN_DATA_FLOAT; }
  std::int64_t padded(std::int64_t count) const {
    if (bytes_of_number(type) != 2) return count;
    return (count + kChannelsAtOnce - 1) / kChannelsAtOnce * kChannelsAtOnce;
  }
  std::int64_t padded_channels() const { return padded(channels()); }
  std::int64_t bytes() const { return sizes[0] * channels() * space() * bytes_of_number(type); }
  std::int64_t padded_bytes() const {
    return (is_of_weights ? padded(sizes[0]) : sizes[0]) * padded_channels() * space() * bytes_of_number(type);
  }
  // Channels lie side by side, in as many as kernels take at once.
  bool lies_as_kernels_want() const { return strides[1] == 1 && padded_bytes() == bytes(); }

  std::vector<std::int64_t> sizes, strides;
  int type;
  bool is_of_weights;
};

struct Convolution {
  Direction direction;
  Image x, w, y;  // input, weights, output, or their gradients

  std::int64_t groups() const { return x.channels() / std::max<std::int64_t>(1, w.channels()); }
  // Each channel, or few, by itself: no matrix product, and all tensors as they are.
  bool is_depthwise() const { return groups() > 1 && w.channels() < kChannelsAtOnce; }
  // Of the input, that a result is summed over.
  double channels() const { return static_cast<double>(is_depthwise() ? w.channels() : w.padded_channels()); }
  const Image& result() const {
    return direction == Direction::kForward ? y : direction == Direction::kData ? x : w;
  }
  // Whether a kernel works on a copy of it: factors of four bytes are rounded.
  bool is_copied(const Image& image) const {
    if (!image.is_float()) return !image.lies_as_kernels_want();
    if (&image != &result()) return true;
    return direction != Direction::kForward && !image.lies_as_kernels_want();
  }
};

struct Names {
  cudnnBackendDescriptorType_t operation;
  Direction direction;
  cudnnBackendAttributeName_t x, w, y;
};
constexpr std::array<Names, 3> kNames{{
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, Direction::kForward,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, Direction::kData,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, Direction::kFilter,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
}};

std::optional<Convolution> convolution_of(const Descriptor& operation) {
  for (const Names& names : kNames) {
    if (operation.type() != names.operation) continue;
    const DescriptorRef x = operation.descriptor(names.x), w = operation.descriptor(names.w),
                        y = operation.descriptor(names.y);
    if (x == nullptr || w == nullptr || y == nullptr) return std::nullopt;
    Convolution found{names.direction, Image(*x), Image(*w, true), Image(*y)};
    if (!found.x.is_valid() || !found.w.is_valid() || !found.y.is_valid()) return std::nullopt;
    return found;
  }
  return std::nullopt;
}

// What follows a convolution in its graph (a bias, an activation) is done by its kernel.
std::optional<Convolution> find_convolution(const Descriptor& operation_graph) {
  for (const DescriptorRef& operation : operation_graph.descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
    if (const auto found = convolution_of(*operation)) return found;
  }
  return std::nullopt;
}

NumberKind numbers_of(const Convolution& convolution, bool uses_tensor_float) {
  if (convolution.is_depthwise()) return NumberKind::kFloat32;
  return number_kind(convolution.x.type, uses_tensor_float);
}

// Rows, columns, and what is summed over, for each group.
ProductShape shape_of(const Convolution& convolution) {
  const auto groups = static_cast<double>(convolution.groups());
  const auto places = static_cast<double>(convolution.y.sizes[0] * convolution.y.space());
  const auto results = static_cast<double>(convolution.w.sizes[0]) / groups;
  const double window = convolution.channels() * static_cast<double>(convolution.w.space());
  if (convolution.direction == Direction::kForward) return {places, results, window, groups};
  if (convolution.direction == Direction::kFilter) return {results, window, places, groups};
  // Of a window whose steps are longer than one, each place of the input sees a part.
  const auto inputs = static_cast<double>(convolution.x.sizes[0] * convolution.x.space());
  return {inputs, convolution.channels(), results * static_cast<double>(convolution.w.space()) * (places / inputs), groups};
}

Work product_of(const Convolution& convolution, bool uses_tensor_float) {
  const ProductShape shape = shape_of(convolution);
  Work work{.activity = Activity::kMatrix,
            .flops = 2 * shape.m * shape.n * shape.k * shape.batch,
            .bytes = static_cast<double>(convolution.x.bytes() + convolution.w.bytes() + convolution.y.bytes()),
            .numbers = numbers_of(convolution, uses_tensor_float)};
  if (!convolution.is_depthwise()) work.product = shape;
  return work;
}

// Weights are few: sums over all places are taken in parts, each in float32, so that all multiprocessors have one.
std::int64_t bytes_of_parts(const Convolution& convolution) {
  if (convolution.direction != Direction::kFilter) return 0;
  const std::int64_t results = convolution.w.sizes[0];
  const std::int64_t window = convolution.w.padded_channels() * convolution.w.space();
  const std::int64_t tiles = ((results + kTile - 1) / kTile) * ((window + kTile - 1) / kTile);
  const std::int64_t parts = kPartsAtOnce / tiles;
  return parts > 1 ? parts * results * window * bytes_of_number(CUDNN_DATA_FLOAT) : 0;
}

}  // namespace

bool may_use_tensor_float(const Descriptor& operation_graph) {
  const auto found = find_convolution(operation_graph);
  return found && found->x.is_float() && !found->is_depthwise();
}

std::optional<ConvolutionPlan> plan_convolution(const Descriptor& operation_graph,
                                                bool uses_tensor_float) {
  const auto found = find_convolution(operation_graph);
  if (!found) return std::nullopt;
  ConvolutionPlan plan{.workspace_bytes = 0, .product = product_of(*found, uses_tensor_float), .copies = {.launches = 0}};
  if (found->is_depthwise() || (found->x.is_float() && !uses_tensor_float)) return plan;
  for (const Image* image : {&found->x, &found->w, &found->y}) {
    if (!found->is_copied(*image)) continue;
    plan.workspace_bytes += image->padded_bytes();
    plan.copies.bytes += static_cast<double>(image->bytes() + image->padded_bytes());
    ++plan.copies.launches;
  }
  if (plan.workspace_bytes > 0) plan.workspace_bytes += kFixedBytes;
  plan.workspace_bytes += bytes_of_parts(*found);
  return plan;
}

}  // namespace ebbtide::dryrun
