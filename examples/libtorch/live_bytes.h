// Bytes of live tensors on a device, and their peak.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

// Counts what goes through torch's allocator for host memory.
class CountingAllocator final : public c10::Allocator {
 public:
  static CountingAllocator& instance() {
    static auto* allocator = new CountingAllocator;  // tensors may be freed when the program ends
    return *allocator;
  }

  // A block begins with its Header; the tensor's bytes follow.
  c10::DataPtr allocate(std::size_t bytes) override {
    c10::DataPtr inner = inner_->allocate(bytes + kHeader);
    auto* block = static_cast<std::byte*>(inner.get());
    const auto size = static_cast<std::int64_t>(bytes);
    new (block) Header{std::move(inner), size};
    const std::int64_t now = live_ += size;
    for (std::int64_t peak = peak_; now > peak && !peak_.compare_exchange_weak(peak, now);)
      continue;
    return {block + kHeader, block + kHeader, &free, at::Device(at::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    inner_->copy_data(to, from, bytes);
  }

  void reset_peak() { peak_ = live_.load(); }
  std::int64_t peak() const { return peak_; }

 private:
  struct Header {
    c10::DataPtr inner;
    std::int64_t bytes;
  };
  static constexpr std::size_t kHeader = 64;  // torch wants this alignment
  static_assert(sizeof(Header) <= kHeader);

  static void free(void* data) {
    auto* header = reinterpret_cast<Header*>(static_cast<std::byte*>(data) - kHeader);
    instance().live_ -= header->bytes;
    const c10::DataPtr inner = std::move(header->inner);  // freed when the header is gone
    header->~Header();
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
