#include "hooks/torch_cuda_out_of_memory.h"

#include <utility>

namespace ebbtide {

thread_local int OutOfMemoryRelay::Quiet::depth_ = 0;

void OutOfMemoryRelay::attach(Observer observer) {
  bool is_first = false;
  {
    const std::lock_guard lock(lock_);
    is_first = observers_.empty();
    observers_.push_back(std::move(observer));
  }
  if (!is_first) return;
  upstream_.attachOutOfMemoryObserver([this](std::int64_t device, std::size_t allocated, std::size_t total, std::size_t free) {
    if (!Quiet::is_on()) tell(device, allocated, total, free);
  });
}

void OutOfMemoryRelay::tell(std::int64_t device, std::size_t allocated, std::size_t total, std::size_t free) {
  std::vector<Observer> observers;
  {
    const std::lock_guard lock(lock_);
    observers = observers_;
  }
  for (const Observer& observer : observers) observer(device, allocated, total, free);
}

}  // namespace ebbtide
