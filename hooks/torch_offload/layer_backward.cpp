// The backward of a layer: after attention in pieces, attention, before attention in pieces.
#include <ATen/ops/empty_like.h>

#include <utility>

#include "hooks/torch_offload/gradient_sums.h"
#include "hooks/torch_offload/layer_record.h"
#include "hooks/torch_offload/room.h"

namespace ebbtide::offload {
namespace {

void fill_rows(const at::Tensor& place, const at::Tensor& rows) {
  if (rows.defined()) {
    place.copy_(rows);
  } else {
    place.zero_();
  }
}

struct Rate {
  double bytes = 0, tokens = 0;
  double per_token() const { return tokens > 0 ? bytes / tokens : 0; }
};

// One backward on its way. Each step lets go of what no later one needs.
class Backward {
 public:
  explicit Backward(LayerRecord& record) : record_(record), x_(record.land_x()) {}

  LayerGradients run(at::Tensor dy, bool overwrites) {
    at::Tensor out = record_.repeats_attention() ? attend_again() : land_out();
    at::Tensor dx = overwrites && dy.scalar_type() == x_.scalar_type() ? dy : at::empty_like(x_);
    at::Tensor dout = at::empty_like(out);
    Tensors sums = after(dy, dx, out, dout);
    dy.reset();
    if (!record_.repeats_attention()) record_.attention.put_back(take_parts());
    if (!prefetch_previous_early()) record_.prefetch_before();
    Tape::Gradients attention = record_.attention.backward(dout, record_.trainable);
    out.reset();
    dout.reset();
    record_.out.reset();
    // Or they would come behind all that the previous layer begins with. Attention's output and its gradient
    // are gone: half of their room is enough.
    record_.prefetch_before(0, bytes_of(x_));
    prefetch_previous();
    add(sums, attention.parameters);
    add(sums, before(dx, std::move(attention.inputs)));
    return {std::move(dx), std::move(sums)};
  }

 private:
  at::Tensor land_out() {
    record_.attention.prefetch();
    return record_.land_out();
  }

  // Attention's output once more, from q, k, v of all pieces.
  at::Tensor attend_again() {
    for (auto& piece : record_.pieces) put_parts(piece);
    const Tensors parts = take_parts();
    if (record_.attention_state.defined()) record_.random.set(record_.attention_state);
    record_.tally->stats.attention_forwards += 1;
    const AttentionBackendsAgain backends(record_.attention_backends.value());
    at::Tensor out = record_.attention.forward(record_.layer.attention, parts, *record_.state->kept,
                                               record_.externals);
    record_.attention.put_back(parts);
    record_.attention.out_landing()->put(out);
    return out;
  }

  // The after parts: their gradients of attention's output go to `dout`, those of x to `dx`.
  Tensors after(const at::Tensor& dy, const at::Tensor& dx, const at::Tensor& out,
                const at::Tensor& dout) {
    GradientSums sums(record_.trainable, record_.pieces.size());
    const std::size_t ahead = pieces_ahead();
    for (std::size_t i = 0; i < record_.pieces.size(); ++i) {
      Piece& piece = record_.pieces[i];
      record_.prefetch_after(i + 1, ahead);
      if (!record_.repeats_attention()) put_parts(piece);
      Tape tape = after_tape(piece, out);
      Tape::Gradients found = tape.gradients({piece.span.of(dy)}, record_.trainable);
      fill_rows(piece.span.of(dx), found.inputs[0]);
      fill_rows(piece.span.of(dout), found.inputs[1]);
      sums.add(std::move(found.parameters));
    }
    return sums.take();
  }

  // The before parts: their gradients of x are added to `dx`.
  Tensors before(const at::Tensor& dx, Tensors dparts) {
    GradientSums sums(record_.trainable, record_.pieces.size());
    for (std::size_t i = 0; i < record_.pieces.size(); ++i) {
      Piece& piece = record_.pieces[i];
      record_.prefetch_before(i + 1);
      Tape tape = before_tape(piece);
      Tensors rows;
      for (const auto& whole : dparts) {
        rows.push_back(whole.defined() ? piece.span.of(whole) : at::Tensor());
      }
      Tape::Gradients found = tape.gradients(rows, record_.trainable);
      if (found.inputs[0].defined()) piece.span.of(dx).add_(found.inputs[0]);
      sums.add(std::move(found.parameters));
    }
    return sums.take();
  }

  // Rows of q, k, v for attention's backward: saved ones belong to a graph, too.
  void put_parts(Piece& piece) {
    const bool is_ours = piece.parts.empty();
    Tensors parts;
    if (is_ours) {
      if (piece.begin.defined()) record_.random.set(piece.begin);
      parts = record_.layer.before_attention(piece.span.of(x_), piece.span);
    }
    for (const auto& rows : piece.parts) parts.push_back(rows.get());
    parts_.resize(parts.size(), Rows(record_.tokens));
    for (std::size_t i = 0; i < parts.size(); ++i) parts_[i].put(piece.span, parts[i], is_ours);
    piece.parts.clear();
  }

  Tensors take_parts() {
    Tensors parts;
    for (auto& rows : parts_) parts.push_back(rows.take());
    return parts;
  }

  Tape after_tape(Piece& piece, const at::Tensor& out) {
    if (piece.after) {
      piece.saved_after.clear();
      return std::move(*std::exchange(piece.after, std::nullopt));
    }
    const auto run = [&](const Tensors& sources) {
      return Tensors{record_.layer.after_attention(sources[0], sources[1], piece.span)};
    };
    Tensors outputs;
    return tape(piece.middle, run, {piece.span.of(x_), piece.span.of(out)}, &outputs, after_rate_);
  }

  Tape before_tape(Piece& piece) {
    if (piece.before) {
      piece.saved_before.clear();
      return std::move(*std::exchange(piece.before, std::nullopt));
    }
    const auto run = [&](const Tensors& sources) {
      return record_.layer.before_attention(sources[0], piece.span);
    };
    Tensors parts;
    Tape found = tape(piece.begin, run, {piece.span.of(x_)}, &parts, before_rate_);
    count_recomputed(piece, parts);
    return found;
  }

  // Runs one part of a piece again. A layer's first piece is measured.
  Tape tape(const at::Tensor& state, const std::function<Tensors(const Tensors&)>& run,
            const Tensors& inputs, Tensors* outputs, Rate& rate) {
    if (state.defined()) record_.random.set(state);
    if (record_.tally->rest_per_token > 0) return Tape::record(run, inputs, outputs);
    Recorder recorder(&record_.externals);
    const HookScope scope(&recorder);
    Tape found = Tape::record(run, inputs, outputs);
    rate.bytes += static_cast<double>(recorder.measure(inputs));
    rate.tokens += static_cast<double>(inputs[0].size(1));
    return found;
  }

  void count_recomputed(const Piece& piece, const Tensors& parts) {
    Tally& tally = *record_.tally;
    const auto tokens = static_cast<double>(piece.span.tokens());
    if (tally.rest_per_token <= 0) {
      double bytes = 0;
      for (const auto& part : parts) bytes += static_cast<double>(part.nbytes());
      tally.rest_per_token = bytes / tokens + after_rate_.per_token() + before_rate_.per_token();
    }
    tally.stats.recomputed_bytes += static_cast<std::int64_t>(tally.rest_per_token * tokens);
  }

  // Saved after parts that are on their way back while a piece runs: two, where there is room. Of two in a
  // row the second one's copy takes longer than the first one's work.
  std::size_t pieces_ahead() const {
    const Piece* piece = record_.next_after(0);
    if (piece == nullptr || !record_.state->fetches_early()) return 1;
    return has_room(x_.device(), 1, bytes_of(x_), 2 * piece->after_bytes()) ? 2 : 1;
  }

  // The layer before begins its backward when this one ends. Its input and attention's output land
  // when this layer's attention is through: before, they would be part of the peak. But a slow link
  // cannot bring them while the before parts run alone: where there is room, they may come early.
  // In front of them what this layer needs meanwhile, half as much, or it would come behind all of that.
  bool prefetch_previous_early() const {
    const auto previous = this->previous();
    if (previous == nullptr || !record_.state->fetches_early()) return false;
    const std::int64_t fetched = previous->first_bytes(), ours = record_.before_bytes(fetched / 2);
    // The whole device: a share that CUDA's allocator was told is not known without CUDA's libraries.
    if (!has_room(x_.device(), 1, bytes_of(x_), ours + fetched)) return false;
    record_.prefetch_before(0, fetched / 2);
    previous->prefetch();
    return true;
  }

  void prefetch_previous() const {
    if (const auto previous = this->previous()) previous->prefetch();  // nothing, where it was early
  }

  std::shared_ptr<LayerRecord> previous() const {
    auto found = record_.previous.lock();
    return found == nullptr || found->is_used ? nullptr : found;
  }

  static void add(Tensors& sums, const Tensors& others) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (!others[i].defined()) continue;
      sums[i] = sums[i].defined() ? sums[i] + others[i] : others[i];
    }
  }

  LayerRecord& record_;
  at::Tensor x_;
  std::vector<Rows> parts_;        // q, k, v
  Rate after_rate_, before_rate_;  // what recomputed parts save
};

}  // namespace

LayerGradients run_backward(LayerRecord& record, at::Tensor dy, bool overwrites) {
  record.is_used = true;
  record.check();
  const at::NoGradGuard no_grad;
  const UndisturbedRandom undisturbed(dy.device());
  const AutocastAgain autocast(record.autocast);
  return Backward(record).run(std::move(dy), overwrites);
}

}  // namespace ebbtide::offload
