// cuBLASLt: descriptors are accepted, there is always one algorithm, and it does nothing; its time is
// known from the layouts.
#include <cublasLt.h>

#include <algorithm>
#include <cstring>

#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"
#include "dryrun/cublas/product.h"

namespace {

char handle_object;

// What is kept of a layout, in the opaque structure itself.
struct Layout {
  cudaDataType type;
  std::int32_t batch;
  std::uint64_t rows, columns;
  std::int64_t leading, batch_stride;

  std::uint64_t elements() const { return rows * columns; }
};
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));

Layout read(cublasLtMatrixLayout_t layout) {
  Layout kept;
  std::memcpy(&kept, layout, sizeof kept);
  return kept;
}
void write(cublasLtMatrixLayout_t layout, const Layout& kept) {
  std::memcpy(layout, &kept, sizeof kept);
}

// Of the numbers that lie side by side in it: columns, in the order that torch asks for.
int alignment(const Layout& layout, const void* data) {
  return ebbtide::dryrun::alignment_of({data, layout.type, static_cast<std::int64_t>(layout.rows),
                                        layout.leading, layout.batch_stride});
}

// The kind of computation is what a descriptor begins with.
cublasComputeType_t compute_type(cublasLtMatmulDesc_t descriptor) {
  cublasComputeType_t type;
  std::memcpy(&type, descriptor, sizeof type);
  return type;
}

template <typename Descriptor>
cublasStatus_t create(Descriptor** descriptor) {
  *descriptor = new Descriptor();
  return CUBLAS_STATUS_SUCCESS;
}

template <typename Descriptor>
cublasStatus_t destroy(Descriptor* descriptor) {
  delete descriptor;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(&handle_object);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
std::size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
std::size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* descriptor, cublasComputeType_t type,
                                        cudaDataType_t) {
  create(descriptor);
  std::memcpy(*descriptor, &type, sizeof type);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t descriptor) {
  return destroy(descriptor);
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t columns,
                                          std::int64_t leading) {
  create(layout);
  write(*layout, {type, 1, rows, columns, leading, 0});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, std::size_t size) {
  Layout kept = read(layout);
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && size == sizeof kept.batch) {
    std::memcpy(&kept.batch, value, size);
  }
  if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && size == sizeof kept.batch_stride) {
    std::memcpy(&kept.batch_stride, value, size);
  }
  write(layout, kept);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t descriptor, const void*,
                              const void* a_data, cublasLtMatrixLayout_t a_layout,
                              const void* b_data, cublasLtMatrixLayout_t b_layout, const void*,
                              const void*, cublasLtMatrixLayout_t, void* d_data,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t*, void*, std::size_t,
                              cudaStream_t stream) {
  const Layout a = read(a_layout);
  const Layout b = read(b_layout);
  const Layout d = read(d_layout);
  if (d.elements() == 0) return CUBLAS_STATUS_SUCCESS;
  ebbtide::dryrun::Product product;
  product.m = static_cast<std::int64_t>(d.rows);
  product.n = static_cast<std::int64_t>(d.columns);
  product.k = static_cast<std::int64_t>(a.elements() / d.rows);
  product.batch = d.batch;
  product.a = a.type;
  product.b = b.type;
  product.c = d.type;
  product.uses_tensor_float = compute_type(descriptor) == CUBLAS_COMPUTE_32F_FAST_TF32;
  product.row_alignment =
      std::min({alignment(a, a_data), alignment(b, b_data), alignment(d, d_data)});
  ebbtide::dryrun::note_work(stream, ebbtide::dryrun::work_of(product));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy(layout);
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return create(preference);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preference);
}

// torch takes a count of zero for an error.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* count) {
  *count = 0;
  if (requested < 1) return CUBLAS_STATUS_INVALID_VALUE;
  std::memset(&results[0], 0, sizeof results[0]);
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1.0F;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

// Called by the generated stand-ins of everything that is not simulated.
int ebbtide_dryrun_refuse_cublasLt(const char* function) {
  ebbtide::dryrun::report_unimplemented(function);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

}  // extern "C"
