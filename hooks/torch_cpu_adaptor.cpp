// The engine in front of torch's CPU allocator: what a machine without a GPU runs.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <exception>
#include <memory>

#include "allocator/device/host_range.h"
#include "hooks/registry.h"
#include "hooks/torch_adaptor.h"
#include "hooks/torch_backward.h"
#include "hooks/torch_stacks.h"

namespace ebbtide {
namespace {

// Tensors smaller than this are scalars and small vectors: not worth a place in a plan.
constexpr Bytes kSmallestPlanned{4 * kKiB.value};
// Address space only; memory is taken as it is touched.
constexpr Bytes kReservation{1024 * kGiB.value};
constexpr int kHostMemory = -1;
// Above torch's own registration (0), so that a later default does not undo ours.
constexpr std::uint8_t kPriority = 10;

class CpuAdaptor final : public c10::Allocator {
 public:
  CpuAdaptor(Engine& engine, c10::Allocator& upstream)
      : engine_(engine),
        upstream_(upstream),
        upstream_delete_(upstream.raw_deleter()),
        stacks_(TorchStacks::make(Registry::get())) {}

  c10::DataPtr allocate(std::size_t count) override {
    const Bytes size{static_cast<std::int64_t>(count)};
    if (!engine_.wants(size)) {
      engine_.note_small(size);
      c10::DataPtr small = upstream_.allocate(count);
      static_cast<void>(small.compare_exchange_deleter(upstream_delete_, &deallocate));
      return small;
    }
    if (stacks_ != nullptr) stacks_->enter();
    const Engine::Grant grant = engine_.allocate(size, StreamId{});
    if (grant.address != nullptr) {
      return {grant.address, grant.address, &deallocate, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DataPtr block = allocate_upstream(size, grant);
    engine_.note_upstream(block.get(), size, grant);
    // Ours, so that its end is seen; upstream's is called from it.
    if (block.get() != nullptr) {
      const bool swapped = block.compare_exchange_deleter(upstream_delete_, &deallocate);
      if (!swapped) engine_.forget_upstream(block.get());
    }
    return block;
  }

  // oneDNN's operators free through this what raw_allocate() gave them, of whatever size.
  c10::DeleterFnPtr raw_deleter() const override { return &deallocate; }

  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }

  void release(void* address) noexcept {
    if (engine_.owns(address)) {
      engine_.deallocate(address);
      return;
    }
    engine_.forget_upstream(address);
    upstream_delete_(address);
  }

  static CpuAdaptor* instance;

 private:
  static void deallocate(void* address) { instance->release(address); }

  c10::DataPtr allocate_upstream(Bytes size, const Engine::Grant& grant) {
    try {
      return upstream_.allocate(static_cast<std::size_t>(size.value));
    } catch (...) {
      engine_.note_refused(size, grant);
      throw;
    }
  }

  Engine& engine_;
  c10::Allocator& upstream_;
  c10::DeleterFnPtr upstream_delete_;
  const std::unique_ptr<TorchStacks> stacks_;  // null: no stacks are wanted
};

CpuAdaptor* CpuAdaptor::instance = nullptr;

void install() {
  Registry::Device device;
  device.options.device = kHostMemory;
  device.options.smallest_planned = kSmallestPlanned;
  device.options.upstream_caches = false;
  device.options.is_in_backward = find_backward_probe();
  device.range = std::make_unique<HostRange>(kReservation);
  device.fences = std::make_unique<NoFences>();
  Engine& engine = Registry::get().add(std::move(device));
  // Leaked on purpose: tensors outlive static destructors.
  CpuAdaptor::instance = new CpuAdaptor(engine, *c10::GetDefaultCPUAllocator());
  c10::SetCPUAllocator(CpuAdaptor::instance, kPriority);
}

}  // namespace
}  // namespace ebbtide

ebbtide_status ebbtide_torch_cpu_install(void) {
  try {
    if (ebbtide::CpuAdaptor::instance == nullptr) ebbtide::install();
    return EBBTIDE_OK;
  } catch (const std::exception&) {
    return EBBTIDE_SYSTEM;
  }
}
