#include "dryrun/cudnn/recurrent_work.h"

#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"
#include "dryrun/cudnn/data_type.h"

namespace ebbtide::dryrun {

namespace {

constexpr int kLaunchesOfStep = 2;     // a product, and what the gates do
constexpr double kStaysNear = 0.5;     // of the L2 cache, beside what else is there

Work product(const RecurrentLayer& layer, double m, double n, double k, double batch) {
  const auto size = static_cast<double>(bytes_of_number(layer.type));
  return {.activity = Activity::kMatrix,
          .flops = 2 * m * n * k * batch,
          .bytes = (m * k + k * n + m * n) * batch * size,
          .numbers = number_kind(layer.type, layer.uses_tensor_float),
          .product = {m, n, k, batch}};
}

// All steps of a layer at once, both directions.
Work whole_layer(const RecurrentLayer& layer, const Sequences& sequences, RecurrentPass pass, std::int64_t index) {
  const auto places = static_cast<double>(sequences.places());
  const auto gates = static_cast<double>(layer.gates() * layer.hidden);
  const auto inputs = static_cast<double>(layer.inputs_of(index));
  const auto directions = static_cast<double>(layer.directions);
  if (pass == RecurrentPass::kForward) return product(layer, places, gates, inputs, directions);
  if (pass == RecurrentPass::kData) return product(layer, places, inputs, gates, directions);
  return product(layer, gates, inputs, places, directions);
}

// Gradients of the weights that the state, or its projection, goes through.
void note_state_weights(const cudnnContext& handle, const RecurrentLayer& layer, const Sequences& sequences) {
  const auto places = static_cast<double>(sequences.places());
  const auto gates = static_cast<double>(layer.gates() * layer.hidden);
  const auto outputs = static_cast<double>(layer.outputs);
  const auto all = static_cast<double>(layer.layers * layer.directions);
  note_work(handle.stream, product(layer, gates, outputs, places, all));
  if (layer.is_projected()) note_work(handle.stream, product(layer, outputs, static_cast<double>(layer.hidden), places, all));
}

// One step of as many cells as are at work beside each other.
Work step_of(const RecurrentLayer& layer, std::int64_t batch, std::int64_t cells, bool is_forward) {
  const auto rows = static_cast<double>(batch), beside = static_cast<double>(cells);
  const auto hidden = static_cast<double>(layer.hidden), outputs = static_cast<double>(layer.outputs);
  const double gates = static_cast<double>(layer.gates()) * hidden;
  const auto size = static_cast<double>(bytes_of_number(layer.type));
  Work work = is_forward ? product(layer, rows, gates, outputs, beside) : product(layer, rows, outputs, gates, beside);
  const double projecting = layer.is_projected() ? 2 * rows * hidden * outputs * beside : 0;
  work.flops += projecting;
  const double weights = (gates * outputs + (projecting > 0 ? hidden * outputs : 0)) * beside * size;
  const double l2 = Simulator::instance().timeline().speed().l2_bytes;
  const bool stay_near = layer.is_persistent() || weights <= kStaysNear * l2;
  // Gates are read and kept for the backward; a state is read and written.
  work.bytes = (stay_near ? 0 : weights) + rows * beside * size * (2 * gates + 4 * hidden);
  work.launches = layer.is_persistent() ? 1 : kLaunchesOfStep + (projecting > 0 ? 1 : 0);
  return work;
}

void note_steps(const cudnnContext& handle, const RecurrentLayer& layer, const Sequences& sequences, bool is_forward) {
  const std::int64_t steps = sequences.steps();
  if (layer.is_bidirectional()) {
    for (std::int64_t index = 0; index < layer.layers; ++index) {
      for (std::int64_t step = 0; step < steps; ++step) {
        note_work(handle.stream, step_of(layer, sequences.batch_at(step), layer.directions, is_forward));
      }
    }
    return;
  }
  // A layer is at step t where the one above it is at step t - 1.
  for (std::int64_t time = 0; time < steps + layer.layers - 1; ++time) {
    const std::int64_t cells = std::min({time + 1, layer.layers, steps, steps + layer.layers - 1 - time});
    const std::int64_t earliest = std::max<std::int64_t>(0, time - layer.layers + 1);
    note_work(handle.stream, step_of(layer, sequences.batch_at(earliest), cells, is_forward));
  }
}

}  // namespace

void note_recurrent(const cudnnContext& handle, const RecurrentLayer& layer, const Sequences& sequences, RecurrentPass pass) {
  for (std::int64_t index = 0; index < layer.layers; ++index) {
    note_work(handle.stream, whole_layer(layer, sequences, pass, index));
  }
  if (pass == RecurrentPass::kWeights) {
    note_state_weights(handle, layer, sequences);
  } else {
    note_steps(handle, layer, sequences, pass == RecurrentPass::kForward);
  }
}

}  // namespace ebbtide::dryrun
