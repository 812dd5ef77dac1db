// What one call of a layer leaves behind for its backward.
#pragma once

#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "hooks/torch_offload/ambient.h"
#include "hooks/torch_offload/attention.h"
#include "hooks/torch_offload/state.h"

namespace ebbtide::offload {

// A dense tensor in a store, with its strides.
class SavedRows {
 public:
  SavedRows(Store& store, const at::Tensor& tensor);
  at::Tensor get() const { return saved_->get().as_strided(size_, stride_); }
  void prefetch() const { saved_->prefetch(); }
  std::int64_t size_bytes() const { return saved_->size_bytes(); }

 private:
  SavedHandle saved_;
  std::vector<std::int64_t> size_, stride_;
};

// A whole-length tensor that is filled piece by piece; with a single piece, that piece itself.
class Rows {
 public:
  explicit Rows(std::int64_t tokens) : tokens_(tokens) {}
  // `is_ours`: nobody else needs the piece, so that whoever takes the whole may write to it.
  void put(Span span, const at::Tensor& piece, bool is_ours = true);
  at::Tensor take() { return std::move(tensor_); }

 private:
  std::int64_t tokens_;
  at::Tensor tensor_;
};

// One piece of one call. A part that has no tape is recomputed in backward.
struct Piece {
  Span span;
  bool is_swapped = false;   // else recomputed
  at::Tensor begin, middle;  // random states before the before part and before the after part
  std::optional<Tape> before, after;
  std::vector<SavedRows> parts;  // q, k, v
  SavedHandles saved_before, saved_after;

  void prefetch_before() const;
  void prefetch_after() const;
  std::int64_t before_bytes() const;  // that prefetch_before() asks for
  std::int64_t after_bytes() const;  // that prefetch_after() asks for
};

// State of one call between forward and backward. Owned by its autograd node alone.
struct LayerRecord {
  LayerRecord(std::shared_ptr<State> state, Layer layer, const at::Tensor& x, bool trains);

  // Saves the input, which may not be changed in place from now on.
  void save_input(const at::Tensor& x);
  // Whether a run of this piece is to be saved. What would not fit on the host is recomputed.
  bool saves(const Piece& piece) const;
  // Saves what a run of a piece recorded, and `outputs` as its parts.
  SavedHandles hand_over(Piece& piece, Recorder& recorder, const Tensors& outputs);
  // Forward has run. If it drew no random numbers, backward has none to draw again.
  void forget_unused_states();
  at::Tensor land_x();
  // Attention's output. Not if attention is to run again.
  at::Tensor land_out();
  bool repeats_attention() const { return state->options.recomputes_attention; }
  // Asks for what the after parts' backward begins with.
  void prefetch() const;
  // Bytes that prefetch() asks for.
  std::int64_t first_bytes() const;
  // Asks for what the next saved before part needs, behind the first `done` pieces; and for those
  // after it that all together weigh at most `room` bytes.
  void prefetch_before(std::size_t done = 0, std::int64_t room = 0) const;
  // Bytes that prefetch_before() asks for.
  std::int64_t before_bytes(std::int64_t room) const;
  // The same for the next `ahead` after parts.
  void prefetch_after(std::size_t done = 0, std::size_t ahead = 1) const;
  // The first piece from `done` on whose after part is saved; null without one.
  const Piece* next_after(std::size_t done) const;
  // Throws std::runtime_error if what forward used was changed in place since.
  void check() const;

  const std::shared_ptr<State> state;
  const Layer layer;
  const std::shared_ptr<Tally> tally;
  const std::int64_t tokens;
  Tensors trainable;                        // of the layer's parameters
  std::unordered_set<StorageId> externals;  // storages that live on without this record
  const Autocast autocast;
  RandomStates random;
  std::vector<Piece> pieces;
  const bool trains;
  double rest_per_token = 0,
         rest_allowance = 0;  // bytes that a token wants to swap; that this call may
  TallyingStore store;
  std::vector<Witness> witnesses;
  std::optional<SavedRows> x, out;
  LandingHandle x_landing;
  SavedAttention attention;
  at::Tensor attention_state;           // random state before attention, if that is to run again
  std::optional<AttentionBackends> attention_backends;  // what it could run on, if that is to run again
  std::weak_ptr<LayerRecord> previous;  // the layer whose backward comes next
  bool is_used = false;
};

// The layer's output; without a graph. If the record trains, it then has all that backward needs.
at::Tensor run_forward(LayerRecord& record, const at::Tensor& x);

struct LayerGradients {
  at::Tensor x;
  Tensors parameters;  // of record.trainable
};

// With `overwrites`, nobody else needs `dy`, and the input's gradient takes its memory.
LayerGradients run_backward(LayerRecord& record, at::Tensor dy, bool overwrites);

}  // namespace ebbtide::offload
