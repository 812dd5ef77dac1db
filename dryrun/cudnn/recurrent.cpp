// cuDNN's interface of recurrent layers: descriptors, where weights lie, spaces, and kernels.
#include "dryrun/core/simulator.h"
#include "dryrun/cudnn/data_type.h"
#include "dryrun/cudnn/dropout.h"
#include "dryrun/cudnn/handle.h"
#include "dryrun/cudnn/recurrent_memory.h"
#include "dryrun/cudnn/recurrent_work.h"
#include "dryrun/cudnn/tensor_descriptor.h"

using namespace ebbtide::dryrun;

namespace {

// Writes where some weights lie, of which only what is asked for.
void put_place(const WeightPlace& place, cudnnDataType_t type, const void* space, cudnnTensorDescriptor_t tensor,
               void** address) {
  const int rows = static_cast<int>(place.rows), columns = static_cast<int>(place.columns);
  if (tensor != nullptr) *tensor = {type, {1, rows, columns}, {rows * columns, columns, 1}};
  if (address == nullptr) return;
  auto* first = static_cast<std::byte*>(const_cast<void*>(space));
  *address = space == nullptr ? nullptr : first + place.offset * bytes_of_number(type);
}

cudnnStatus_t note_pass(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, cudnnRNNDataDescriptor_t data, RecurrentPass pass) {
  if (handle == nullptr || rnn == nullptr || data == nullptr) return CUDNN_STATUS_BAD_PARAM;
  note_recurrent(*handle, rnn->layer, data->sequences, pass);
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cudnnStatus_t cudnnCreateRNNDescriptor(cudnnRNNDescriptor_t* rnn) {
  *rnn = new cudnnRNNStruct();
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyRNNDescriptor(cudnnRNNDescriptor_t rnn) {
  delete rnn;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateRNNDataDescriptor(cudnnRNNDataDescriptor_t* data) {
  *data = new cudnnRNNDataStruct();
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyRNNDataDescriptor(cudnnRNNDataDescriptor_t data) {
  delete data;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t rnn, cudnnRNNAlgo_t algorithm, cudnnRNNMode_t mode,
                                       cudnnRNNBiasMode_t, cudnnDirectionMode_t directions, cudnnRNNInputMode_t,
                                       cudnnDataType_t type, cudnnDataType_t, cudnnMathType_t math,
                                       std::int32_t inputs, std::int32_t hidden, std::int32_t outputs,
                                       std::int32_t layers, cudnnDropoutDescriptor_t dropout, std::uint32_t) {
  if (rnn == nullptr || inputs < 1 || hidden < 1 || outputs < 1 || layers < 1) return CUDNN_STATUS_BAD_PARAM;
  rnn->layer = {.algorithm = algorithm,
                .mode = mode,
                .type = type,
                .uses_tensor_float = math != CUDNN_FMA_MATH,
                .has_dropout = dropout != nullptr && dropout->share > 0,
                .inputs = inputs,
                .hidden = hidden,
                .outputs = outputs,
                .layers = layers,
                .directions = directions == CUDNN_BIDIRECTIONAL ? 2 : 1};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetRNNDataDescriptor(cudnnRNNDataDescriptor_t data, cudnnDataType_t, cudnnRNNDataLayout_t layout, int,
                                        int batch, int, const int* lengths, void*) {
  if (data == nullptr || batch < 1 || lengths == nullptr) return CUDNN_STATUS_BAD_PARAM;
  data->sequences = {{lengths, lengths + batch}, layout == CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t, cudnnRNNDescriptor_t rnn, std::size_t* bytes) {
  if (rnn == nullptr || bytes == nullptr) return CUDNN_STATUS_BAD_PARAM;
  *bytes = static_cast<std::size_t>(weight_count(rnn->layer) * bytes_of_number(rnn->layer.type));
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t, cudnnRNNDescriptor_t rnn, std::int32_t which, std::size_t,
                                      const void* space, std::int32_t index, cudnnTensorDescriptor_t matrix,
                                      void** matrix_address, cudnnTensorDescriptor_t bias, void** bias_address) {
  if (rnn == nullptr) return CUDNN_STATUS_BAD_PARAM;
  const RecurrentLayer& layer = rnn->layer;
  const bool is_projection = index == 2 * layer.gates();
  if (which < 0 || which >= layer.layers * layer.directions || index < 0 || index > 2 * layer.gates() ||
      (is_projection && !layer.is_projected()))
    return CUDNN_STATUS_BAD_PARAM;
  put_place(matrix_place(layer, which, index), layer.type, space, matrix, matrix_address);
  put_place(is_projection ? WeightPlace{} : bias_place(layer, which, index), layer.type,
            is_projection ? nullptr : space, bias, bias_address);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t, cudnnRNNDescriptor_t rnn, cudnnForwardMode_t mode,
                                        cudnnRNNDataDescriptor_t data, std::size_t* workspace, std::size_t* reserve) {
  if (rnn == nullptr || data == nullptr) return CUDNN_STATUS_BAD_PARAM;
  const DeviceModel& model = Simulator::instance().model();
  const RecurrentSpaces spaces =
      spaces_of(rnn->layer, data->sequences, mode == CUDNN_FWD_MODE_TRAINING, 10 * model.major + model.minor);
  if (workspace != nullptr) *workspace = static_cast<std::size_t>(spaces.workspace_bytes);
  if (reserve != nullptr) *reserve = static_cast<std::size_t>(spaces.reserve_bytes);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNForward(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, cudnnForwardMode_t, const std::int32_t*,
                              cudnnRNNDataDescriptor_t data, const void*, cudnnRNNDataDescriptor_t, void*,
                              cudnnTensorDescriptor_t, const void*, void*, cudnnTensorDescriptor_t, const void*, void*,
                              std::size_t, const void*, std::size_t, void*, std::size_t, void*) {
  return note_pass(handle, rnn, data, RecurrentPass::kForward);
}

cudnnStatus_t cudnnRNNBackwardData_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, const std::int32_t*,
                                      cudnnRNNDataDescriptor_t, const void*, const void*, cudnnRNNDataDescriptor_t data,
                                      void*, cudnnTensorDescriptor_t, const void*, const void*, void*,
                                      cudnnTensorDescriptor_t, const void*, const void*, void*, std::size_t, const void*,
                                      std::size_t, void*, std::size_t, void*) {
  return note_pass(handle, rnn, data, RecurrentPass::kData);
}

cudnnStatus_t cudnnRNNBackwardWeights_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, cudnnWgradMode_t,
                                         const std::int32_t*, cudnnRNNDataDescriptor_t data, const void*,
                                         cudnnTensorDescriptor_t, const void*, cudnnRNNDataDescriptor_t, const void*,
                                         std::size_t, void*, std::size_t, void*, std::size_t, void*) {
  return note_pass(handle, rnn, data, RecurrentPass::kWeights);
}

}  // extern "C"
