// Streams and events, in virtual time (core/timeline.h). Bytes move when a copy is queued, whenever
// that is: programs order their work, and a simulated device keeps that order.
#include "dryrun/core/faults.h"
#include "dryrun/cudart/status.h"

using namespace ebbtide::dryrun;

namespace {

Event* event_of(cudaEvent_t event) { return reinterpret_cast<Event*>(event); }

// The host would wait for the stream, or ask how far it is.
cudaError_t wait_for_capture(cudaStream_t stream) {
  return capture_error(Captures::instance().synchronise(clock_of(stream)));
}

cudaError_t ask(const Event& event) {
  if (const cudaError_t error = do_unsafe(); error != cudaSuccess) return error;
  return capture_error(Captures::instance().ask(event.point));
}

bool is_ours(cudaStream_t stream) { return is_stream_object(stream); }

cudaError_t create_stream(cudaStream_t* stream, unsigned int flags, int priority) {
  StreamClock& clock =
      timeline().add_stream(current_device(), (flags & cudaStreamNonBlocking) == 0);
  *stream = reinterpret_cast<cudaStream_t>(new Stream{current_device(), flags, priority, &clock});
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create_stream(stream, 0, 0); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  return create_stream(stream, flags, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int flags, int priority) {
  return create_stream(stream, flags, priority);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (is_ours(stream)) delete reinterpret_cast<Stream*>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  *priority = is_ours(stream) ? reinterpret_cast<Stream*>(stream)->priority : 0;
  return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned int* flags) {
  *flags = is_ours(stream) ? reinterpret_cast<Stream*>(stream)->flags : 0;
  return cudaSuccess;
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  *device = is_ours(stream) ? reinterpret_cast<Stream*>(stream)->device : current_device();
  return cudaSuccess;
}
cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  *id = to_address(stream);
  return cudaSuccess;
}
// Not noted as an error: CUDA does not keep it for cudaGetLastError either.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (const cudaError_t error = wait_for_capture(stream); error != cudaSuccess) return error;
  return timeline().is_over(timeline().end_of(clock_of(stream))) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const cudaError_t error = wait_for_capture(stream); error != cudaSuccess) return error;
  ++Simulator::instance().counters().stream_synchronizations;
  timeline().hold_host(timeline().end_of(clock_of(stream)));
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
  if (is_made_to_fail(FallibleCall::kEvent)) return note(cudaErrorUnknown);
  const Event& waited = *event_of(event);
  StreamClock& clock = clock_of(stream);
  const bool is_captured = waited.point.capture != nullptr || Captures::instance().view(clock).id != 0;
  if (is_captured) return capture_error(Captures::instance().wait(clock, waited.point, waited.recorded));
  if (waited.recorded) timeline().wait(clock, waited.moment);
  return cudaSuccess;
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback,
                                  void* argument, unsigned int) {
  if (const cudaError_t error = wait_for_capture(stream); error != cudaSuccess) return error;
  callback(stream, cudaSuccess, argument);
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  if (const cudaError_t error = check_capture(stream); error != cudaSuccess) return error;
  const bool is_kept = Captures::instance().add(clock_of(stream), [=](StreamClock&) { function(argument); });
  if (!is_kept) function(argument);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags) {
  if (is_made_to_fail(FallibleCall::kEvent)) return note(cudaErrorUnknown);
  *event = reinterpret_cast<cudaEvent_t>(new Event{{}, {}, false, flags});
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event_of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (is_made_to_fail(FallibleCall::kEvent)) return note(cudaErrorUnknown);
  if (const cudaError_t error = check_capture(stream); error != cudaSuccess) return error;
  Event& recorded = *event_of(event);
  StreamClock& clock = clock_of(stream);
  recorded.point = Captures::instance().record(clock);
  recorded.recorded = true;
  if (recorded.point.capture == nullptr) recorded.moment = timeline().record(clock);
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned int flags) {
  if (flags == cudaEventRecordExternal && Captures::instance().view(clock_of(stream)).id != 0) {
    report_unimplemented("cudaEventRecordWithFlags(cudaEventRecordExternal) in a capture");
    return note(cudaErrorNotSupported);
  }
  return cudaEventRecord(event, stream);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const cudaError_t error = ask(*event_of(event)); error != cudaSuccess) return error;
  return timeline().is_over(event_of(event)->moment) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const cudaError_t error = ask(*event_of(event)); error != cudaSuccess) return error;
  ++Simulator::instance().counters().stream_synchronizations;
  timeline().hold_host(event_of(event)->moment);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const Event& first = *event_of(start);
  const Event& last = *event_of(end);
  if (!first.recorded || !last.recorded) return note(cudaErrorInvalidValue);
  for (const Event* event : {&first, &last}) {
    if (event->point.capture != nullptr) return note(cudaErrorCapturedEvent);
  }
  if (!timeline().is_over(first.moment) || !timeline().is_over(last.moment)) {
    return note(cudaErrorNotReady);
  }
  *milliseconds = static_cast<float>((last.moment.time - first.moment.time) * 1e3);
  return cudaSuccess;
}

}  // extern "C"
