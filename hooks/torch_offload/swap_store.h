// Saved tensors in pinned host memory: they leave behind the work that made them, and return early.
#pragma once

#include <array>
#include <map>
#include <tuple>

#include "hooks/torch_offload/store.h"
#include "hooks/torch_offload/swap_engine.h"
#include "hooks/torch_offload/swap_entry.h"

namespace ebbtide::offload {

// Takes tensors of one device over into host memory. What does not fit there stays on the device,
// split by token: the first rows of a tensor leave, the others are kept. Tensors that are saved
// together leave, return and take memory as one. The same bytes saved again while they are on their
// way are stored once.
class SwapStore final : public Store {
 public:
  SwapStore(at::Device device, std::int64_t host_budget);

  std::vector<SavedHandle> save_all(const Tensors& tensors) override;
  // The next layer's work on the current stream begins when the copies have ended of what the layer
  // before the one that ended saved; the host does not wait.
  void layer_ended() override;
  // Everything on its way out leaves the device: the current stream waits for the copies.
  void let_go();
  ebbtide_swap_stats stats() const { return engine_->stats(); }

 private:
  using Entry = std::shared_ptr<SwapEntry>;
  // Tells bytes apart as long as their storage is alive; what is on its way keeps it alive.
  using Key = std::tuple<const void*, std::int64_t, std::int64_t, at::ScalarType, std::uint32_t>;
  struct Place {
    Entry entry;
    std::size_t number = 0;
  };
  struct WeakPlace {
    std::weak_ptr<SwapEntry> entry;
    std::size_t number = 0;
  };

  static Key key_of(const at::Tensor& flat);
  at::Tensor flat(const at::Tensor& tensor) const;
  // Where the bytes of `key` are on their way already.
  std::optional<Place> find(const Key& key) const;
  // Takes over distinct tensors: in one entry, or, if they do not fit together, each in its own.
  std::vector<Place> take_over(const Tensors& flats, const std::vector<Key>& keys);
  void let_go_of_one_layer();

  at::Device device_;
  std::shared_ptr<SwapEngine> engine_;
  std::array<std::vector<std::weak_ptr<SwapEntry>>, 2>
      layers_;  // on their way: of the layer before, of this
  std::map<Key, WeakPlace> in_flight_;
  std::int64_t unled_bytes_ = 0;  // saved since layer_ended() was called, or the start
};

}  // namespace ebbtide::offload
