// The forward of a layer: before attention in pieces, attention once, after attention in pieces.
#include "hooks/torch_offload/layer_record.h"

namespace ebbtide::offload {
namespace {

Tensors before_piece(LayerRecord& record, Piece& piece, const at::Tensor& x) {
  const auto run = [&](const Tensors& sources) {
    return record.layer.before_attention(sources[0], piece.span);
  };
  if (!record.saves(piece)) return run({x});
  Recorder recorder(&record.externals);
  Tensors parts;
  {
    const HookScope scope(&recorder);
    piece.before = Tape::record(run, {x}, &parts);
  }
  piece.saved_before = record.hand_over(piece, recorder, parts);
  return parts;
}

Tensors run_before(LayerRecord& record, const at::Tensor& x) {
  std::vector<Rows> rows;
  for (auto& piece : record.pieces) {
    piece.begin = record.random.now();
    const Tensors parts = before_piece(record, piece, piece.span.of(x));
    rows.resize(parts.size(), Rows(record.tokens));
    for (std::size_t i = 0; i < parts.size(); ++i) rows[i].put(piece.span, parts[i]);
  }
  Tensors whole;
  for (auto& row : rows) whole.push_back(row.take());
  return whole;
}

at::Tensor run_attention(LayerRecord& record, const Tensors& parts) {
  if (!record.trains) return record.layer.attention(parts);
  record.tally->stats.attention_forwards += 1;
  // Half a layer's time is enough to copy what half a layer saves, if that is attention's output
  // alone.
  if (record.state->alpha_of(record.tally->index) == 0) record.state->leaving().layer_ended();
  if (record.repeats_attention()) {
    record.attention_state = record.random.now();
    at::Tensor out = attend_as_in_training(record.layer.attention, parts, record.externals);
    record.attention_backends.emplace();
    return out;
  }
  at::Tensor out =
      record.attention.forward(record.layer.attention, parts, record.store, record.externals);
  record.out.emplace(record.store, out);
  return out;
}

at::Tensor after_piece(LayerRecord& record, Piece& piece, const at::Tensor& x,
                       const at::Tensor& out) {
  const auto run = [&](const Tensors& sources) {
    return Tensors{record.layer.after_attention(sources[0], sources[1], piece.span)};
  };
  if (!record.saves(piece)) return run({x, out}).front();
  Recorder recorder(&record.externals);
  Tensors outputs;
  {
    const HookScope scope(&recorder);
    piece.after = Tape::record(run, {x, out}, &outputs);
  }
  piece.saved_after = record.hand_over(piece, recorder, {});
  return outputs.front();
}

}  // namespace

at::Tensor run_forward(LayerRecord& record, const at::Tensor& input) {
  const at::NoGradGuard no_grad;  // tapes switch it on
  const at::Tensor x = input.detach();
  if (record.trains) record.save_input(x);
  Tensors parts = run_before(record, x);
  const at::Tensor out = run_attention(record, parts);
  parts.clear();
  Rows y(record.tokens);
  for (auto& piece : record.pieces) {
    piece.middle = record.random.now();
    y.put(piece.span, after_piece(record, piece, piece.span.of(x), piece.span.of(out)));
  }
  if (record.trains) {
    record.forget_unused_states();
    record.x_landing->drop();
  }
  return y.take();
}

}  // namespace ebbtide::offload
