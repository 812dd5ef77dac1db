// cuDNN's graph interface, as far as attention and convolutions go: graphs, one engine that does any of them (for
// convolutions of float32 numbers a second one that does not round them), plans, and kernels. Attention's take what
// the companion says, of convolutions the graph tells.
#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"
#include "dryrun/cudnn/attention_graph.h"
#include "dryrun/cudnn/convolution_graph.h"
#include "dryrun/cudnn/descriptor.h"
#include "dryrun/cudnn/handle.h"

using namespace ebbtide::dryrun;

namespace {

// CUDNN_ATTR_ENGINECFG_SHARED_MEMORY_USED, which older headers lack.
constexpr auto kSharedMemoryUsed = static_cast<cudnnBackendAttributeName_t>(304);

cudnnStatus_t finalize_graph(Descriptor& graph) {
  if (!plan_attention(graph) && !plan_convolution(graph, false)) {
    report_unimplemented("cuDNN graphs other than attention's and convolutions'");
    return CUDNN_STATUS_NOT_SUPPORTED;
  }
  graph.set_numbers(CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT, {1});
  return CUDNN_STATUS_SUCCESS;
}

DescriptorRef configuration_of(const DescriptorRef& graph, std::int64_t index, bool uses_tensor_float) {
  const auto engine = std::make_shared<Descriptor>(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  engine->set_descriptors(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, {graph});
  engine->set_numbers(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, {index});
  if (uses_tensor_float) {
    constexpr auto kNote = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    engine->set(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, 1, &kNote);
  }
  auto configuration = std::make_shared<Descriptor>(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  configuration->set_descriptors(CUDNN_ATTR_ENGINECFG_ENGINE, {engine});
  configuration->set_numbers(kSharedMemoryUsed, {0});
  return configuration;
}

cudnnStatus_t propose_engines(Descriptor& heuristics) {
  const DescriptorRef graph = heuristics.descriptor(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  if (graph == nullptr) return CUDNN_STATUS_BAD_PARAM;
  std::vector<DescriptorRef> configurations;
  if (may_use_tensor_float(*graph)) configurations.push_back(configuration_of(graph, 0, true));
  configurations.push_back(configuration_of(graph, 1, false));
  heuristics.set_descriptors(CUDNN_ATTR_ENGINEHEUR_RESULTS, std::move(configurations));
  return CUDNN_STATUS_SUCCESS;
}

struct Plan {
  std::optional<AttentionPlan> attention;
  std::optional<ConvolutionPlan> convolution;

  bool is_valid() const { return attention || convolution; }
  std::int64_t workspace_bytes() const {
    return attention ? attention->workspace_bytes : convolution->workspace_bytes;
  }
};

Plan planned(const Descriptor& plan) {
  const DescriptorRef configuration = plan.descriptor(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  const DescriptorRef engine =
      configuration ? configuration->descriptor(CUDNN_ATTR_ENGINECFG_ENGINE) : nullptr;
  const DescriptorRef graph = engine ? engine->descriptor(CUDNN_ATTR_ENGINE_OPERATION_GRAPH) : nullptr;
  if (graph == nullptr) return {};
  const bool uses_tensor_float = engine->get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, 0, nullptr) > 0;
  return {plan_attention(*graph), plan_convolution(*graph, uses_tensor_float)};
}

cudnnStatus_t finalize_plan(Descriptor& plan) {
  const Plan found = planned(plan);
  if (!found.is_valid()) return CUDNN_STATUS_BAD_PARAM;
  plan.set_numbers(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, {found.workspace_bytes()});
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
  auto made = std::make_shared<Descriptor>(type);
  *descriptor = made.get();
  made->own();
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  if (descriptor != nullptr) Descriptor::of(descriptor)->disown();
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t count,
                                       const void* elements) {
  if (descriptor == nullptr || count < 0 || (count > 0 && elements == nullptr)) return CUDNN_STATUS_BAD_PARAM;
  Descriptor::of(descriptor)->set(name, type, count, elements);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t room,
                                       std::int64_t* count, void* elements) {
  if (descriptor == nullptr) return CUDNN_STATUS_BAD_PARAM;
  const std::int64_t found = Descriptor::of(descriptor)->get(name, type, room, elements);
  if (count != nullptr) *count = found;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  if (descriptor == nullptr) return CUDNN_STATUS_BAD_PARAM;
  Descriptor& own = *Descriptor::of(descriptor);
  switch (own.type()) {
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
      return finalize_graph(own);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      return propose_engines(own);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      return finalize_plan(own);
    default:
      return CUDNN_STATUS_SUCCESS;
  }
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t) {
  if (handle == nullptr || plan == nullptr) return CUDNN_STATUS_BAD_PARAM;
  const Plan found = planned(*Descriptor::of(plan));
  if (!found.is_valid()) return CUDNN_STATUS_BAD_PARAM;
  if (found.attention) {
    for (int i = 0; i < found.attention->launches; ++i) note_launch(handle->stream);
    return CUDNN_STATUS_SUCCESS;
  }
  if (found.convolution->copies.launches > 0) note_work(handle->stream, found.convolution->copies);
  note_work(handle->stream, found.convolution->product);
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
