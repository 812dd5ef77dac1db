// Copies, streams and events of one CUDA device, through the runtime that the process has loaded.
#pragma once

#include <memory>
#include <optional>

#include "allocator/device/copy_device.h"
#include "allocator/device/cuda_runtime.h"

namespace ebbtide {

// Streams do not synchronise with the legacy default stream: every order is an event's. A failing
// call leaves no error behind in the runtime that torch would find and raise.
class CudaCopyDevice final : public CopyDevice {
 public:
  // kUnsupported without a runtime, or when it has no such device.
  static Result<std::unique_ptr<CopyDevice>> open(int device);

  Result<StreamId> create_stream() override;
  void destroy_stream(StreamId stream) override;
  Result<EventId> create_event() override;
  void destroy_event(EventId event) override;
  Status record(EventId event, StreamId stream) override;
  Status wait(StreamId stream, EventId event) override;
  bool is_done(EventId event) override;
  std::optional<std::int64_t> elapsed_ns(EventId from, EventId to) override;
  Status copy(void* target, const void* source, Bytes bytes, StreamId stream) override;
  Status synchronize(StreamId stream) override;
  Status pin(void* place, Bytes bytes) override;
  void unpin(void* place) override;
  std::optional<int> numa_node() const override { return numa_node_; }

 private:
  CudaCopyDevice(const CudaRuntime& runtime, int device);
  Status status_of(CudaRuntime::Status status, const char* call) const;

  const CudaRuntime& runtime_;
  const int device_;
  std::optional<int> numa_node_;
};

}  // namespace ebbtide
