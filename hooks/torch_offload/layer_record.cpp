#include "hooks/torch_offload/layer_record.h"

#include <algorithm>
#include <utility>

#include "hooks/torch_offload/pieces.h"

namespace ebbtide::offload {

SavedRows::SavedRows(Store& store, const at::Tensor& tensor) {
  const bool has_gaps = span_of(tensor) > tensor.numel();
  const at::Tensor dense =
      has_gaps ? dense_like(tensor, 0, tensor.size(0)).copy_(tensor) : tensor.detach();
  size_ = dense.sizes().vec();
  stride_ = dense.strides().vec();
  saved_ = store.save_all({part_of(dense, {span_of(dense)}, {1}, 0)}).front();
}

void Rows::put(Span span, const at::Tensor& piece, bool is_ours) {
  // A view of more than itself (a fused projection's q) is copied: a Landing tells whole tensors by storage.
  const bool is_alone = piece.storage().nbytes() == piece.nbytes();
  if (span.tokens() == tokens_ && is_ours && is_alone) {
    tensor_ = piece.detach();
    return;
  }
  if (!tensor_.defined()) tensor_ = dense_like(piece, 1, tokens_);
  span.of(tensor_).copy_(piece);
}

void Piece::prefetch_before() const {
  for (const auto& saved : saved_before) saved->prefetch();
}

std::int64_t Piece::before_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& saved : saved_before) bytes += saved->size_bytes();
  return bytes;
}

void Piece::prefetch_after() const {
  for (const auto& saved : saved_after) saved->prefetch();
  for (const auto& rows : parts) rows.prefetch();
}

std::int64_t Piece::after_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& saved : saved_after) bytes += saved->size_bytes();
  for (const auto& rows : parts) bytes += rows.size_bytes();
  return bytes;
}

LayerRecord::LayerRecord(std::shared_ptr<State> of, Layer cut, const at::Tensor& input,
                         bool training)
    : state(std::move(of)),
      layer(std::move(cut)),
      tally(state->tally_of(layer)),
      tokens(input.size(1)),
      autocast(input.device()),
      random(input.device()),
      trains(training),
      store(LayerBudget(*state, layer, *tally, input).stays() ? *state->kept : state->leaving(),
            tally->stats) {
  for (const auto& parameter : layer.parameters) {
    if (parameter.requires_grad()) trainable.push_back(parameter);
    externals.insert(storage_of(parameter));
  }
  for (const auto& buffer : layer.buffers) externals.insert(storage_of(buffer));
  const LayerBudget budget(*state, layer, *tally, input);
  for (const Span span : budget.spans()) {
    pieces.emplace_back();
    pieces.back().span = span;
    pieces.back().is_swapped = trains && budget.is_swapped(pieces.size() - 1);
  }
  rest_per_token = budget.rest_per_token();
  rest_allowance = budget.rest_allowance();
}

void LayerRecord::save_input(const at::Tensor& input) {
  x.emplace(store, input);
  x_landing = std::make_shared<Landing>(input);
  witnesses.emplace_back(input, "the input of a layer");
  for (const auto& parameter : layer.parameters) witnesses.emplace_back(parameter, "a parameter");
}

bool LayerRecord::saves(const Piece& piece) const {
  return piece.is_swapped &&
         rest_allowance >= rest_per_token * static_cast<double>(piece.span.tokens());
}

SavedHandles LayerRecord::hand_over(Piece& piece, Recorder& recorder,
                                                const Tensors& outputs) {
  auto saved = recorder.hand_over(store, {x_landing, attention.out_landing()});
  for (const auto& one : saved) rest_allowance -= static_cast<double>(one->size_bytes());
  for (const auto& output : outputs) {
    piece.parts.emplace_back(store, output);
    rest_allowance -= static_cast<double>(output.nbytes());
  }
  return saved;
}

void LayerRecord::forget_unused_states() {
  if (!random.now().is_same(pieces.front().begin)) return;
  for (auto& piece : pieces) piece.begin = piece.middle = at::Tensor();
  attention_state.reset();
}

at::Tensor LayerRecord::land_x() {
  const at::Tensor landed = x->get();
  x_landing->put(landed);
  return landed;
}

at::Tensor LayerRecord::land_out() {
  const at::Tensor landed = out->get();
  attention.out_landing()->put(landed);
  return landed;
}

void LayerRecord::prefetch() const {
  if (out) out->prefetch();
  x->prefetch();
  prefetch_after();
}

void LayerRecord::prefetch_before(std::size_t done, std::int64_t room) const {
  for (std::size_t i = done; i < pieces.size(); ++i) {
    if (pieces[i].saved_before.empty()) continue;
    pieces[i].prefetch_before();
    room -= pieces[i].before_bytes();
    if (room <= 0) return;
  }
}

std::int64_t LayerRecord::before_bytes(std::int64_t room) const {
  std::int64_t bytes = 0;
  for (const Piece& piece : pieces) {
    bytes += piece.before_bytes();
    if (bytes > 0 && bytes >= room) break;
  }
  return bytes;
}

const Piece* LayerRecord::next_after(std::size_t done) const {
  const auto found = std::find_if(
      pieces.begin() + static_cast<std::ptrdiff_t>(done), pieces.end(),
      [](const Piece& piece) { return !piece.saved_after.empty() || !piece.parts.empty(); });
  return found == pieces.end() ? nullptr : &*found;
}

void LayerRecord::prefetch_after(std::size_t done, std::size_t ahead) const {
  for (; ahead > 0; --ahead) {
    const Piece* piece = next_after(done);
    if (piece == nullptr) return;
    piece->prefetch_after();
    done = static_cast<std::size_t>(piece - pieces.data()) + 1;
  }
}

std::int64_t LayerRecord::first_bytes() const {
  const Piece* piece = next_after(0);
  return (out ? out->size_bytes() : 0) + x->size_bytes() +
         (piece == nullptr ? 0 : piece->after_bytes());
}

void LayerRecord::check() const {
  for (const auto& witness : witnesses) witness.check();
}

}  // namespace ebbtide::offload
