// cuDNN's descriptors of tensors, and of dropout.
#include "dryrun/cudnn/tensor_descriptor.h"

#include <algorithm>

#include "dryrun/core/simulator.h"
#include "dryrun/cudnn/dropout.h"
#include "dryrun/cudnn/recurrent_memory.h"

extern "C" {

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* tensor) {
  *tensor = new cudnnTensorStruct();
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor) {
  delete tensor;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t tensor, cudnnDataType_t type, int count,
                                         const int* sizes, const int* strides) {
  if (tensor == nullptr || count < 0) return CUDNN_STATUS_BAD_PARAM;
  *tensor = {type, {sizes, sizes + count}, {strides, strides + count}};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetTensorNdDescriptor(const cudnnTensorDescriptor_t tensor, int room, cudnnDataType_t* type,
                                         int* count, int* sizes, int* strides) {
  if (tensor == nullptr || room < 0) return CUDNN_STATUS_BAD_PARAM;
  *type = tensor->type;
  *count = static_cast<int>(tensor->sizes.size());
  const int written = std::min(room, *count);
  std::copy_n(tensor->sizes.begin(), written, sizes);
  std::copy_n(tensor->strides.begin(), written, strides);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateDropoutDescriptor(cudnnDropoutDescriptor_t* dropout) {
  *dropout = new cudnnDropoutStruct();
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyDropoutDescriptor(cudnnDropoutDescriptor_t dropout) {
  delete dropout;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDropoutGetStatesSize(cudnnHandle_t, std::size_t* bytes) {
  const auto& model = ebbtide::dryrun::Simulator::instance().model();
  *bytes = static_cast<std::size_t>(
      ebbtide::dryrun::dropout_state_bytes(model.multiprocessors, model.max_threads_per_multiprocessor));
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetDropoutDescriptor(cudnnDropoutDescriptor_t dropout, cudnnHandle_t, float share, void*,
                                        std::size_t, unsigned long long) {
  if (dropout == nullptr) return CUDNN_STATUS_BAD_PARAM;
  dropout->share = share;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnRestoreDropoutDescriptor(cudnnDropoutDescriptor_t dropout, cudnnHandle_t handle, float share,
                                            void* states, std::size_t bytes, unsigned long long seed) {
  return cudnnSetDropoutDescriptor(dropout, handle, share, states, bytes, seed);
}

}  // extern "C"
