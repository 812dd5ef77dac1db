#include "swap/copy_streams.h"

#include "allocator/base/log.h"

namespace ebbtide {

Result<std::unique_ptr<CopyStreams>> CopyStreams::open(CopyDevice& device) {
  std::unique_ptr<CopyStreams> streams(new CopyStreams(device));
  for (StreamId* stream : {&streams->out_, &streams->in_}) {
    const Result<StreamId> created = device.create_stream();
    if (!created.ok()) return created.error();
    *stream = created.value();
  }
  const Result<EventId> ready = device.create_event();
  if (!ready.ok()) return ready.error();
  streams->ready_ = ready.value();
  return streams;
}

CopyStreams::~CopyStreams() {
  if (ready_.value != 0) device_.destroy_event(ready_);
  for (const StreamId stream : {in_, out_}) {
    if (stream.value != 0) device_.destroy_stream(stream);
  }
}

Status CopyStreams::order(StreamId copies, StreamId compute) {
  const Status recorded = device_.record(ready_, compute);
  return recorded.ok() ? device_.wait(copies, ready_) : recorded;
}

Status CopyStreams::hold_back(StreamId waiting, EventId event, StreamId copies) {
  const Status waited = device_.wait(waiting, event);
  if (waited.ok()) return waited;
  EBBTIDE_WARN("swap: %s; waiting on the host instead", waited.error().message.c_str());
  return drain(copies);
}

Status CopyStreams::drain(StreamId copies) {
  host_waits_ += 1;
  Status through = device_.synchronize(copies);
  if (!through.ok()) EBBTIDE_WARN("swap: %s", through.error().message.c_str());
  return through;
}

}  // namespace ebbtide
