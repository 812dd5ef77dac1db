#include "hooks/torch_offload/attention.h"

namespace ebbtide::offload {
namespace {

using Attention = std::function<at::Tensor(const Tensors&)>;

Tape record(const Attention& attention, const Tensors& parts, Recorder& recorder, at::Tensor* out) {
  const HookScope scope(&recorder);
  const auto run = [&](const Tensors& sources) { return Tensors{attention(sources)}; };
  Tensors outputs;
  Tape tape = Tape::record(run, parts, &outputs);
  *out = outputs.front();
  return tape;
}

}  // namespace

at::Tensor SavedAttention::forward(const Attention& attention, const Tensors& parts, Store& store,
                                   const std::unordered_set<StorageId>& externals) {
  for (const auto& part : parts) part_landings_.push_back(std::make_shared<Landing>(part));
  Recorder recorder(&externals);
  at::Tensor out;
  tape_ = record(attention, parts, recorder, &out);
  out_landing_ = std::make_shared<Landing>(out);
  std::vector<LandingHandle> landings = part_landings_;
  landings.push_back(out_landing_);
  saved_ = recorder.hand_over(store, landings);
  for (const auto& landing : landings) landing->drop();
  return out;
}

void SavedAttention::prefetch() {
  for (const auto& saved : saved_) saved->prefetch();
}

void SavedAttention::put_back(const Tensors& parts) {
  for (std::size_t i = 0; i < parts.size(); ++i) part_landings_[i]->put(parts[i]);
}

Tape::Gradients SavedAttention::backward(const at::Tensor& dout, const Tensors& parameters) {
  Tape::Gradients found = tape_->gradients({dout}, parameters);
  out_landing_->drop();
  for (const auto& landing : part_landings_) landing->drop();
  saved_.clear();
  return found;
}

at::Tensor attend_as_in_training(const Attention& attention, const Tensors& parts,
                                 const std::unordered_set<StorageId>& externals) {
  Recorder recorder(&externals);
  at::Tensor out;
  record(attention, parts, recorder, &out);
  return out;
}

}  // namespace ebbtide::offload
