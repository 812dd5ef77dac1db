#include "hooks/torch_cuda_devices.h"

namespace ebbtide {

void TorchCudaDevices::add_up_to(int count, Bytes smallest_planned) {
  for (int device = static_cast<int>(devices_.size()); device < count; ++device) {
    devices_.push_back(std::make_unique<TorchCudaDevice>(upstream_, device, smallest_planned, pools_));
  }
  sole_ = devices_.size() == 1 ? devices_.front().get() : nullptr;
}

bool TorchCudaDevices::forget(void* address) {
  // A thread mostly frees on one device for a long time: the others need not be asked, and their locks not taken.
  static thread_local std::size_t last = 0;
  const std::size_t count = devices_.size();
  if (count == 1) return forget(*devices_.front(), address).value_or(false);
  for (std::size_t i = 0, at = last; i < count; ++i, at = at + 1 < count ? at + 1 : 0) {
    if (const std::optional<bool> freed = forget(*devices_[at], address)) {
      last = at;
      return *freed;
    }
  }
  return false;
}

// None: it is not this device's.
std::optional<bool> TorchCudaDevices::forget(TorchCudaDevice& own, void* address) {
  const std::optional<UpstreamBlock> gone = own.engine().forget_upstream(address);
  if (!gone) return std::nullopt;
  own.statistics().forget_upstream(gone->size);
  return gone->is_lasting && release_lasting(own, address);
}

TorchCudaDevice* TorchCudaDevices::owner_among_several(const void* address) const {
  for (const auto& own : devices_) {
    if (own->engine().owns(address)) return own.get();
  }
  return nullptr;
}

c10::DataPtr TorchCudaDevices::allocate_lasting(Device device, Bytes size) {
  const std::lock_guard lock(attic_lock_);
  void* address = find(device)->attic().allocate(size);
  return {address, address, upstream_.raw_deleter(), c10::Device(c10::DeviceType::CUDA, device)};
}

bool TorchCudaDevices::release_lasting(TorchCudaDevice& own, void* address) {
  const std::lock_guard lock(attic_lock_);
  return own.attic().release(address, own.engine().home());
}

}  // namespace ebbtide
