// cuSPARSE's handles: MAGMA, which is part of torch, makes one for each of its queues, and uses it for nothing
// dense. All else fails with its name.
#include <cusparse.h>

#include "dryrun/core/simulator.h"

struct cusparseContext {
  cudaStream_t stream = nullptr;
};

extern "C" {

cusparseStatus_t cusparseCreate(cusparseHandle_t* handle) {
  *handle = new cusparseContext();
  return CUSPARSE_STATUS_SUCCESS;
}
cusparseStatus_t cusparseDestroy(cusparseHandle_t handle) {
  delete handle;
  return CUSPARSE_STATUS_SUCCESS;
}
cusparseStatus_t cusparseSetStream(cusparseHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUSPARSE_STATUS_SUCCESS;
}

const char* cusparseGetErrorName(cusparseStatus_t status) {
  return status == CUSPARSE_STATUS_SUCCESS         ? "CUSPARSE_STATUS_SUCCESS"
         : status == CUSPARSE_STATUS_NOT_SUPPORTED ? "CUSPARSE_STATUS_NOT_SUPPORTED"
                                                   : "CUSPARSE_STATUS_UNKNOWN";
}
const char* cusparseGetErrorString(cusparseStatus_t status) { return cusparseGetErrorName(status); }

// Called by the generated stand-ins of everything that is not simulated.
int ebbtide_dryrun_refuse_cusparse(const char* function) {
  ebbtide::dryrun::report_unimplemented(function);
  return CUSPARSE_STATUS_NOT_SUPPORTED;
}

}  // extern "C"
