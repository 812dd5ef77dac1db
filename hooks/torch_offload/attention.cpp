#include "hooks/torch_offload/attention.h"

namespace ebbtide::offload {

at::Tensor SavedAttention::forward(const std::function<at::Tensor(const Tensors&)>& attention,
                                   const Tensors& parts, Store& store,
                                   const std::unordered_set<StorageId>& externals) {
  for (const auto& part : parts) part_landings_.push_back(std::make_shared<Landing>(part));
  Recorder recorder(&externals);
  Tensors outputs;
  {
    const HookScope scope(&recorder);
    const auto run = [&](const Tensors& sources) { return Tensors{attention(sources)}; };
    tape_ = Tape::record(run, parts, &outputs);
  }
  out_landing_ = std::make_shared<Landing>(outputs.front());
  std::vector<LandingHandle> landings = part_landings_;
  landings.push_back(out_landing_);
  saved_ = recorder.hand_over(store, landings);
  for (const auto& landing : landings) landing->drop();
  return outputs.front();
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

}  // namespace ebbtide::offload
