// The devices that the adaptor knows, and whose an address is.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "hooks/torch_cuda_device.h"
#include "hooks/torch_cuda_pools.h"

namespace ebbtide {

// Thread-safe once it is filled: before the first allocation.
class TorchCudaDevices {
 public:
  using Device = c10::DeviceIndex;
  using Upstream = c10::cuda::CUDACachingAllocator::CUDAAllocator;

  TorchCudaDevices(Upstream& upstream, TorchCudaPools& pools) : upstream_(upstream), pools_(pools) {}

  // So that there are so many.
  void add_up_to(int count, Bytes smallest_planned);

  std::size_t count() const { return devices_.size(); }
  auto begin() const { return devices_.begin(); }
  auto end() const { return devices_.end(); }
  // Null: it is none of these.
  TorchCudaDevice* find(Device device) const {
    const auto index = static_cast<std::size_t>(device);
    return index < devices_.size() ? devices_[index].get() : nullptr;
  }
  // The only one; null: there are none or several.
  TorchCudaDevice* sole() const { return sole_; }
  // In whose arena the address of a live block lies; null: in none.
  TorchCudaDevice* owner_of(const void* address) const {
    if (sole_ == nullptr) return owner_among_several(address);
    return sole_->engine().owns(address) ? sole_ : nullptr;
  }

  // A block of upstream that is kept apart from what comes and goes. Throws what upstream throws.
  c10::DataPtr allocate_lasting(Device device, Bytes size);
  // Tells the device whose block of upstream this is, if it follows it, that it goes. True: it is freed, too.
  bool forget(void* address);

 private:
  [[gnu::noinline]] TorchCudaDevice* owner_among_several(const void* address) const;
  std::optional<bool> forget(TorchCudaDevice& own, void* address);
  bool release_lasting(TorchCudaDevice& own, void* address);

  Upstream& upstream_;
  TorchCudaPools& pools_;
  TorchCudaDevice* sole_ = nullptr;                        // of devices_, if it is the only one
  std::vector<std::unique_ptr<TorchCudaDevice>> devices_;  // by index
  std::mutex attic_lock_;                                  // guards the attics; taken before upstream's locks
};

}  // namespace ebbtide
