// Recurrent layers as cuDNN's descriptors describe them: cells, layers, directions, and the sequences that go through.
#pragma once

#include <cudnn.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace ebbtide::dryrun {

struct RecurrentLayer {
  cudnnRNNAlgo_t algorithm = CUDNN_RNN_ALGO_STANDARD;
  cudnnRNNMode_t mode = CUDNN_LSTM;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  bool uses_tensor_float = true;
  bool has_dropout = false;
  std::int64_t inputs = 0, hidden = 0;
  std::int64_t outputs = 0;  // of one direction: `hidden`, or fewer where they are projected
  std::int64_t layers = 1, directions = 1;

  bool is_projected() const { return outputs != hidden; }
  bool is_bidirectional() const { return directions > 1; }
  // Matrices of one kind that a cell has.
  std::int64_t gates() const { return mode == CUDNN_LSTM ? 4 : mode == CUDNN_GRU ? 3 : 1; }
  std::int64_t inputs_of(std::int64_t layer) const { return layer == 0 ? inputs : outputs * directions; }
  // One kernel goes through all steps, with the weights of a layer on chip.
  bool is_persistent() const { return algorithm != CUDNN_RNN_ALGO_STANDARD; }
};

// A batch of sequences. Padding is no place.
struct Sequences {
  std::vector<int> lengths;
  bool is_packed = false;

  std::int64_t batch() const { return static_cast<std::int64_t>(lengths.size()); }
  std::int64_t places() const { return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}); }
  std::int64_t steps() const { return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end()); }
  // Sequences that are as long as `step` and one.
  std::int64_t batch_at(std::int64_t step) const {
    return std::count_if(lengths.begin(), lengths.end(), [=](int length) { return length > step; });
  }
};

}  // namespace ebbtide::dryrun

struct cudnnRNNStruct {
  ebbtide::dryrun::RecurrentLayer layer;
};

struct cudnnRNNDataStruct {
  ebbtide::dryrun::Sequences sequences;
};
