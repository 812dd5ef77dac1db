// cuSOLVER's handles and the parameters of its functions. Nothing is computed: where matrices are, and what
// is in them, does not matter.
#include "dryrun/cusolver/handle.h"

#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"

namespace ebbtide::dryrun {

Matrices matrices_of(cudaDataType type, double rows, double columns, double batch) {
  const bool is_double = type == CUDA_R_64F || type == CUDA_C_64F;
  return {.rows = rows,
          .columns = columns,
          .batch = batch,
          .numbers = is_double ? NumberKind::kFloat64 : NumberKind::kFloat32,
          .is_complex = type == CUDA_C_32F || type == CUDA_C_64F};
}

cusolverStatus_t note(cusolverDnHandle_t handle, const Work& work) {
  if (work.bytes > 0) note_work(handle->stream, work);
  return CUSOLVER_STATUS_SUCCESS;
}

}  // namespace ebbtide::dryrun

namespace {

// Parameters of which none matters.
char parameters;

template <typename Parameters>
cusolverStatus_t hand_out(Parameters* to) {
  *to = reinterpret_cast<Parameters>(&parameters);
  return CUSOLVER_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  *handle = new cusolverDnContext();
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  delete handle;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnGetStream(cusolverDnHandle_t handle, cudaStream_t* stream) {
  *stream = handle->stream;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnCreateParams(cusolverDnParams_t* made) { return hand_out(made); }
cusolverStatus_t cusolverDnCreateSyevjInfo(syevjInfo_t* made) { return hand_out(made); }
cusolverStatus_t cusolverDnCreateGesvdjInfo(gesvdjInfo_t* made) { return hand_out(made); }

// Called by the generated stand-ins of everything that is not simulated.
int ebbtide_dryrun_refuse_cusolver(const char* function) {
  ebbtide::dryrun::report_unimplemented(function);
  return CUSOLVER_STATUS_NOT_SUPPORTED;
}

}  // extern "C"
