#include "hooks/torch_cuda_out_of_memory.h"

#include <utility>

namespace ebbtide {

thread_local int OutOfMemoryRelay::Quiet::depth_ = 0;
thread_local std::optional<OutOfMemoryRelay::Failure> OutOfMemoryRelay::kept_back_;
std::atomic<bool> OutOfMemoryRelay::is_listened_to_{false};

void OutOfMemoryRelay::Quiet::begin() {
  ++depth_;
  kept_back_.reset();
}

void OutOfMemoryRelay::attach(Observer observer) {
  bool is_first = false;
  {
    const std::lock_guard lock(lock_);
    is_first = observers_.empty();
    observers_.push_back(std::move(observer));
  }
  if (!is_first) return;
  note_listener();
  upstream_.attachOutOfMemoryObserver([this](std::int64_t device, std::size_t asked, std::size_t total, std::size_t free) {
    const Failure failure{device, asked, total, free};
    Quiet::is_on() ? static_cast<void>(kept_back_ = failure) : tell(failure);
  });
}

void OutOfMemoryRelay::tell(const Failure& failure) {
  std::vector<Observer> observers;
  {
    const std::lock_guard lock(lock_);
    observers = observers_;
  }
  for (const Observer& observer : observers) observer(failure.device, failure.asked, failure.total, failure.free);
}

}  // namespace ebbtide
