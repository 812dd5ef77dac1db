// Saved tensors in pinned host memory: they leave behind the work that made them, and return early.
#pragma once

#include <array>
#include <atomic>
#include <optional>

#include "hooks/torch_offload/store.h"
#include "hooks/torch_offload/swap_engine.h"
#include "hooks/torch_offload/swap_entry.h"
#include "hooks/torch_offload/tensor_layout.h"

namespace ebbtide::offload {

// Takes tensors of one device over into host memory. What does not fit there stays on the device,
// split by token: the first rows of a tensor leave, the others are kept. Tensors that are saved
// together leave, return and take memory as one. The same bytes saved again while they are on their
// way are stored once.
class SwapStore final : public Store {
 public:
  static constexpr std::int64_t kMostInFlight = std::int64_t{1} << 30;

  // `most_in_flight`: bytes on their way out at a time, as long as no layer has ended to go by.
  SwapStore(at::Device device, std::int64_t host_budget,
            std::int64_t most_in_flight = kMostInFlight);

  SavedHandles save_all(at::TensorList tensors) override;
  // The next layer's work on the current stream begins when the copies have ended of what the layer
  // before the one that ended saved; the host does not wait.
  void layer_ended() override;
  // Everything on its way out leaves the device: the current stream waits for the copies.
  void let_go();
  ebbtide_swap_stats stats() const { return engine_->stats(); }
  ebbtide_swap number() const { return engine_->number(); }
  // What found no room on the host and stays on the device until it is released.
  std::int64_t held_bytes() const { return *held_; }

 private:
  using Entry = std::shared_ptr<SwapEntry>;
  struct Place {
    Entry entry;
    std::size_t number = 0;
  };
  struct WeakPlace {
    std::weak_ptr<SwapEntry> entry;
    std::size_t number = 0;
  };

  using Flats = SwapEntry::Each<at::Tensor>;
  using Places = c10::SmallVector<Place, 4>;

  static BytesKey key_of(const at::Tensor& flat);
  at::Tensor flat(const at::Tensor& tensor) const;
  // Where the bytes of `key` are on their way already.
  std::optional<Place> find(const BytesKey& key) const;
  // Takes over distinct tensors: in one entry, or, if they do not fit together, each in its own.
  Places take_over(Flats flats, c10::ArrayRef<BytesKey> keys);
  void let_go_of_one_layer();

  // What left together with one layer. What is on its way keeps the storages of its keys alive.
  struct Leaving {
    std::vector<std::weak_ptr<SwapEntry>> entries;
    BytesMap<WeakPlace> places;
    std::int64_t bytes = 0;
  };

  at::Device device_;
  std::shared_ptr<SwapEngine> engine_;
  HeldBytes held_ = std::make_shared<std::atomic<std::int64_t>>(0);
  std::array<Leaving, 2> layers_;  // of the layer before, of this one
  std::int64_t most_in_flight_;
  bool has_layers_ = false;
};

}  // namespace ebbtide::offload
