// CUDA graphs: captured on streams (core/capture.h), launched as often as wanted.
#include <atomic>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "dryrun/cudart/status.h"

using namespace ebbtide::dryrun;

namespace {

// What a cudaUserObject_t points to; goes with its last reference.
struct UserObject {
  void* object;
  cudaHostFn_t destroy;
  std::atomic<unsigned> references;
};

void release(UserObject* object, unsigned count) {
  if (object->references.fetch_sub(count) > count) return;
  object->destroy(object->object);
  delete object;
}

// A graph's references to what must live as long as it can be launched.
class Retained {
 public:
  explicit Retained(UserObject* object, unsigned count) : object_(object), count_(count) {}
  ~Retained() { release(object_, count_); }
  Retained(const Retained&) = delete;
  Retained& operator=(const Retained&) = delete;

 private:
  UserObject* object_;
  unsigned count_;
};

// What a cudaGraph_t and a cudaGraphExec_t point to.
struct GraphObject {
  std::shared_ptr<const Graph> graph;
  std::vector<std::shared_ptr<Retained>> retained;
};

GraphObject* object_of(cudaGraph_t graph) { return reinterpret_cast<GraphObject*>(graph); }
GraphObject* object_of(cudaGraphExec_t graph) { return reinterpret_cast<GraphObject*>(graph); }

CaptureMode mode_of(cudaStreamCaptureMode mode) {
  switch (mode) {
    case cudaStreamCaptureModeGlobal: return CaptureMode::kGlobal;
    case cudaStreamCaptureModeThreadLocal: return CaptureMode::kThreadLocal;
    case cudaStreamCaptureModeRelaxed: return CaptureMode::kRelaxed;
  }
  return CaptureMode::kGlobal;
}

cudaStreamCaptureMode mode_of(CaptureMode mode) {
  switch (mode) {
    case CaptureMode::kGlobal: return cudaStreamCaptureModeGlobal;
    case CaptureMode::kThreadLocal: return cudaStreamCaptureModeThreadLocal;
    case CaptureMode::kRelaxed: return cudaStreamCaptureModeRelaxed;
  }
  return cudaStreamCaptureModeGlobal;
}

cudaStreamCaptureStatus status_of(CaptureStatus status) {
  switch (status) {
    case CaptureStatus::kNone: return cudaStreamCaptureStatusNone;
    case CaptureStatus::kActive: return cudaStreamCaptureStatusActive;
    case CaptureStatus::kInvalidated: return cudaStreamCaptureStatusInvalidated;
  }
  return cudaStreamCaptureStatusNone;
}

cudaError_t error_of(CaptureError error) {
  switch (error) {
    case CaptureError::kNone: return cudaSuccess;
    case CaptureError::kIllegalState: return cudaErrorIllegalState;
    case CaptureError::kUnsupported: return cudaErrorStreamCaptureUnsupported;
    case CaptureError::kInvalidated: return cudaErrorStreamCaptureInvalidated;
    case CaptureError::kMerge: return cudaErrorStreamCaptureMerge;
    case CaptureError::kUnmatched: return cudaErrorStreamCaptureUnmatched;
    case CaptureError::kUnjoined: return cudaErrorStreamCaptureUnjoined;
    case CaptureError::kIsolation: return cudaErrorStreamCaptureIsolation;
    case CaptureError::kWrongThread: return cudaErrorStreamCaptureWrongThread;
    case CaptureError::kCapturedEvent: return cudaErrorCapturedEvent;
  }
  return cudaErrorUnknown;
}

cudaError_t instantiate(cudaGraphExec_t* executable, cudaGraph_t graph) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new GraphObject(*object_of(graph)));
  return cudaSuccess;
}

}  // namespace

namespace ebbtide::dryrun {

cudaError_t capture_error(CaptureError error) { return note(error_of(error)); }

cudaError_t check_capture(cudaStream_t stream) {
  const bool is_invalid =
      Captures::instance().any() && Captures::instance().view(clock_of(stream)).status == CaptureStatus::kInvalidated;
  return is_invalid ? note(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}

}  // namespace ebbtide::dryrun

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  // The legacy stream waits for others by itself.
  if (stream == nullptr || stream == cudaStreamLegacy) return note(cudaErrorStreamCaptureUnsupported);
  return capture_error(Captures::instance().begin(clock_of(stream), mode_of(mode)));
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  std::shared_ptr<const Graph> captured;
  const CaptureError error = Captures::instance().end(clock_of(stream), captured);
  if (error != CaptureError::kNone) return capture_error(error);
  *graph = reinterpret_cast<cudaGraph_t>(new GraphObject{std::move(captured), {}});
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = status_of(Captures::instance().view(clock_of(stream)).status);
  return cudaSuccess;
}

// Which graph it will be, and after which of its parts the stream stands, is not told.
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, std::size_t* count) {
#else
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                        unsigned long long* id, cudaGraph_t* graph,
                                        const cudaGraphNode_t** dependencies, std::size_t* count) {
  const cudaGraphEdgeData** edges = nullptr;
#endif
  const Captures::View view = Captures::instance().view(clock_of(stream));
  *status = status_of(view.status);
  if (id != nullptr) *id = view.id;
  if (graph != nullptr) *graph = nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  *mode = mode_of(Captures::exchange_thread_mode(mode_of(*mode)));
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  const std::size_t parts = object_of(graph)->graph->deeds.size();
  for (std::size_t i = 0; nodes != nullptr && i < *count; ++i) nodes[i] = nullptr;
  if (nodes == nullptr || *count > parts) *count = parts;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete object_of(graph);
  return cudaSuccess;
}

#if CUDART_VERSION >= 12000
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return instantiate(executable, graph);
}
#endif
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return instantiate(executable, graph);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete object_of(executable);
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (const cudaError_t error = check_capture(stream); error != cudaSuccess) return error;
  enter();
  timeline().host_works(timeline().speed().operator_seconds);
  StreamClock& clock = clock_of(stream);
  const std::shared_ptr<const Graph> graph = object_of(executable)->graph;
  const bool is_kept = Captures::instance().add(clock, [graph](StreamClock& on) { launch(*graph, on); });
  if (!is_kept) launch(*graph, clock);
  return cudaSuccess;
}

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned int) {
  std::FILE* file = std::fopen(path, "w");
  if (file == nullptr) return note(cudaErrorInvalidValue);
  std::fprintf(file, "digraph dot { label=\"%zu parts\" }\n", object_of(graph)->graph->deeds.size());
  std::fclose(file);
  return cudaSuccess;
}

cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* pointer, cudaHostFn_t destroy, unsigned int references,
                                 unsigned int) {
  *object = reinterpret_cast<cudaUserObject_t>(new UserObject{pointer, destroy, references});
  return cudaSuccess;
}
cudaError_t cudaUserObjectRetain(cudaUserObject_t object, unsigned int count) {
  reinterpret_cast<UserObject*>(object)->references.fetch_add(count);
  return cudaSuccess;
}
cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned int count) {
  release(reinterpret_cast<UserObject*>(object), count);
  return cudaSuccess;
}
cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object, unsigned int count,
                                      unsigned int flags) {
  auto* retained = reinterpret_cast<UserObject*>(object);
  if (flags != cudaGraphUserObjectMove) retained->references.fetch_add(count);
  object_of(graph)->retained.push_back(std::make_shared<Retained>(retained, count));
  return cudaSuccess;
}

}  // extern "C"
