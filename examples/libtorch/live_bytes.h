// Bytes of live tensors on a device, and their peak.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

// Counts what goes through torch's allocator for host memory.
class CountingAllocator final : public c10::Allocator {
 public:
  static CountingAllocator& instance() {
    static auto* allocator = new CountingAllocator;  // tensors may be freed when the program ends
    return *allocator;
  }

  c10::DataPtr allocate(std::size_t bytes) override {
    c10::DataPtr inner = inner_->allocate(bytes);
    void* data = inner.get();
    const auto size = static_cast<std::int64_t>(bytes);
    const std::int64_t now = live_ += size;
    for (std::int64_t peak = peak_; now > peak && !peak_.compare_exchange_weak(peak, now);)
      continue;
    return {data, new Block{std::move(inner), size}, &free, at::Device(at::kCPU)};
  }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    inner_->copy_data(to, from, bytes);
  }

  void reset_peak() { peak_ = live_.load(); }
  std::int64_t peak() const { return peak_; }

 private:
  struct Block {
    c10::DataPtr inner;
    std::int64_t bytes;
  };

  static void free(void* block) {
    instance().live_ -= static_cast<Block*>(block)->bytes;
    delete static_cast<Block*>(block);
  }

  c10::Allocator* inner_ = c10::GetCPUAllocator();
  std::atomic<std::int64_t> live_{0}, peak_{0};
};

// The peak since this was made.
class LiveBytes {
 public:
  // To be called before the first tensor that is to be counted.
  static void count_host_tensors() { c10::SetCPUAllocator(&CountingAllocator::instance(), 255); }

  explicit LiveBytes(at::Device device) : device_(device) {
    if (device_.is_cpu()) {
      CountingAllocator::instance().reset_peak();
    } else {
      c10::getDeviceAllocator(device_.type())->resetPeakStats(0);
    }
  }

  std::int64_t peak() const {
    if (device_.is_cpu()) return CountingAllocator::instance().peak();
    return c10::getDeviceAllocator(device_.type())->getDeviceStats(0).allocated_bytes[0].peak;
  }

 private:
  at::Device device_;
};
