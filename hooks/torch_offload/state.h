// What the layers and heads of one session share.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "hooks/torch_offload/auto_alpha.h"
#include "hooks/torch_offload/offload.hpp"
#include "hooks/torch_offload/store.h"
#include "hooks/torch_offload/swap_store.h"

namespace ebbtide::offload {

struct LayerRecord;

// Counts of one layer.
struct Tally {
  LayerStats stats;
  std::size_t index = 0;      // in the order in which layers were first run
  std::size_t pieces = 0;     // of the last call
  double rest_per_token = 0;  // bytes beside input and attention's output; 0: not measured yet
  std::weak_ptr<void> owner;
  // What a trace knows of it; see LayerTrace.
  struct Traced {
    bool has_asked = false;  // for a name's number
    std::uint32_t name = 0;  // 0: no trace is written
    std::int64_t kept_bytes = 0, swapped_bytes = 0, recomputed_bytes = 0;
  } traced;
};

class State {
 public:
  State(at::Device device, const Options& options);

  // The layer's counts; they go on counting. A layer not met before is the last one so far.
  std::shared_ptr<Tally> tally_of(const Layer& layer);
  std::size_t layers() const { return tallies_.size(); }
  const std::vector<std::shared_ptr<Tally>>& tallies() const { return tallies_; }

  const at::Device device;
  const Options options;
  const std::shared_ptr<SwapStore> swap;  // null: nothing leaves the device
  const std::shared_ptr<Store> kept;      // the device
  // Share of the layer with this index that is swapped, and what all of them come from.
  double alpha_of(std::size_t index) const {
    return index < shares_.size() ? shares_[index] : options.alpha;
  }
  double alpha() const { return shares_.empty() ? options.alpha : alpha_; }
  // Each layer's, in whole pieces; they come from `alpha`.
  void set_shares(std::vector<double> shares, double alpha) {
    shares_ = std::move(shares);
    alpha_ = alpha;
  }
  // In backward a layer's input and attention's output come back before the attention of the layer
  // behind it has run, where the device has room.
  bool fetches_early() const { return options.alpha_rule == AlphaRule::kAuto && !options.hbm; }
  AutoAlpha* chooser() const { return chooser_.get(); }  // null: alpha is given

  // Where what leaves goes: `swap`, or `kept`.
  Store& leaving() const { return swap == nullptr ? *kept : *swap; }

  std::weak_ptr<LayerRecord> last;  // the layer's call that went before
  std::int64_t head_calls = 0;
  std::int64_t tagged_bytes = 0;

 private:
  std::vector<std::shared_ptr<Tally>> tallies_;
  std::vector<double> shares_;  // of each layer; empty: options.alpha
  double alpha_ = 0;
  const std::unique_ptr<AutoAlpha> chooser_;
};

// A store that counts what goes in.
class TallyingStore final : public Store {
 public:
  TallyingStore(Store& store, LayerStats& stats) : store_(store), stats_(stats) {}
  SavedHandles save_all(at::TensorList tensors) override;
  void layer_ended() override { store_.layer_ended(); }

 private:
  Store& store_;
  LayerStats& stats_;
};

}  // namespace ebbtide::offload
