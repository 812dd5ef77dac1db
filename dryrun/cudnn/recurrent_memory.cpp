#include "dryrun/cudnn/recurrent_memory.h"

#include "dryrun/cudnn/data_type.h"

namespace ebbtide::dryrun {

namespace {

constexpr std::int64_t kProductBytes = std::int64_t{8} << 20;  // of each stream that multiplies
constexpr std::int64_t kReserveFixedBytes = 256;
constexpr std::int64_t kStepsAtOnce = 256;  // whose gates are worked out of the inputs ahead of them
constexpr std::int64_t kDropoutStateBytes = 24;
constexpr int kHopper = 90;

std::int64_t matrices_of(const RecurrentLayer& layer, std::int64_t which) {
  const std::int64_t inputs = layer.inputs_of(which / layer.directions);
  const std::int64_t projection = layer.is_projected() ? layer.outputs * layer.hidden : 0;
  return layer.gates() * layer.hidden * (inputs + layer.outputs) + projection;
}

std::int64_t matrices_before(const RecurrentLayer& layer, std::int64_t which) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < which; ++i) count += matrices_of(layer, i);
  return count;
}

// Layers, or their directions, that are at work beside each other.
std::int64_t streams_of(const RecurrentLayer& layer, int compute_capability) {
  if (layer.is_bidirectional()) return 2 * layer.layers;
  return layer.layers == 1 || compute_capability >= kHopper ? layer.layers : 0;
}

// Numbers for each sequence of a batch, whatever its length, in one layer.
std::int64_t numbers_of_state(const RecurrentLayer& layer) {
  const std::int64_t h = layer.hidden;
  const bool both = layer.is_bidirectional();
  if (layer.mode == CUDNN_LSTM) return both ? 20 * h + 4 * layer.outputs : 8 * h + 2 * layer.outputs;
  if (layer.mode == CUDNN_GRU) return both ? 14 * h : 5 * h;
  return both ? 10 * h : 3 * h;
}

std::int64_t numbers_forward(const RecurrentLayer& layer, const Sequences& sequences, bool trains) {
  const std::int64_t h = layer.hidden, gates = layer.gates() * h, places = sequences.places();
  const std::int64_t projected = layer.is_projected() ? layer.outputs : 0;
  std::int64_t numbers = layer.layers * sequences.batch() * numbers_of_state(layer);
  if (layer.is_bidirectional()) {
    numbers += places * (2 * gates + 6 * h + layer.inputs + 2 * projected);
  } else {
    numbers += std::min(places, kStepsAtOnce * sequences.batch()) * gates;
    if (!sequences.is_packed) numbers += places * (h + layer.inputs + projected);
    if (layer.has_dropout && trains) numbers += places * h;
  }
  if (layer.is_persistent()) numbers += places * 4 * gates;
  return numbers;
}

std::int64_t numbers_backward(const RecurrentLayer& layer, const Sequences& sequences) {
  const std::int64_t h = layer.hidden;
  const std::int64_t widest = std::max({layer.inputs, layer.layers > 1 ? layer.inputs_of(1) : 0, h});
  std::int64_t of_place = widest + (layer.layers == 1 ? 3 : 2) * h;
  if (!sequences.is_packed) of_place += 2 * layer.inputs;
  if (layer.is_persistent()) of_place += 9 * h;
  return layer.directions * sequences.places() * of_place +
         layer.layers * sequences.batch() * numbers_of_state(layer);
}

std::int64_t reserve_of(const RecurrentLayer& layer, const Sequences& sequences) {
  const std::int64_t h = layer.hidden, places = sequences.places();
  // Gates and cells of an LSTM; gates, state and parts of a GRU; the state of others.
  std::int64_t of_layer = (layer.mode == CUDNN_LSTM ? 5 : layer.mode == CUDNN_GRU ? 6 : 1) * h;
  if (layer.is_projected()) of_layer += h + layer.outputs;
  const std::int64_t between = layer.layers - 1;
  const std::int64_t numbers = layer.directions * (layer.layers * of_layer + between * h);
  const std::int64_t masks = layer.has_dropout ? between * layer.directions * layer.directions * places * h / 8 : 0;
  return kReserveFixedBytes + places * numbers * bytes_of_number(layer.type) + masks;
}

}  // namespace

WeightPlace matrix_place(const RecurrentLayer& layer, std::int64_t which, std::int64_t index) {
  const std::int64_t gates = layer.gates(), h = layer.hidden;
  const std::int64_t inputs = layer.inputs_of(which / layer.directions);
  const std::int64_t begin = matrices_before(layer, which);
  if (index < gates) return {begin + index * h * inputs, h, inputs};
  const std::int64_t of_state = begin + gates * h * inputs;
  if (index < 2 * gates) return {of_state + (index - gates) * h * layer.outputs, h, layer.outputs};
  return {of_state + gates * h * layer.outputs, layer.outputs, h};
}

WeightPlace bias_place(const RecurrentLayer& layer, std::int64_t which, std::int64_t index) {
  const std::int64_t matrices = matrices_before(layer, layer.layers * layer.directions);
  return {matrices + (which * 2 * layer.gates() + index) * layer.hidden, layer.hidden, 1};
}

std::int64_t weight_count(const RecurrentLayer& layer) {
  return bias_place(layer, layer.layers * layer.directions, 0).offset;
}

RecurrentSpaces spaces_of(const RecurrentLayer& layer, const Sequences& sequences, bool trains,
                          int compute_capability) {
  std::int64_t numbers = numbers_forward(layer, sequences, trains);
  if (trains) numbers = std::max(numbers, numbers_backward(layer, sequences));
  RecurrentSpaces spaces;
  spaces.workspace_bytes = (weight_count(layer) + numbers) * bytes_of_number(layer.type) +
                           streams_of(layer, compute_capability) * kProductBytes;
  if (trains) spaces.reserve_bytes = reserve_of(layer, sequences);
  return spaces;
}

std::int64_t dropout_state_bytes(int multiprocessors, int threads_each) {
  return kDropoutStateBytes * multiprocessors * threads_each;
}

}  // namespace ebbtide::dryrun
