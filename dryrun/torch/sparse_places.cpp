#include "dryrun/torch/sparse_places.h"

#include <ATen/ops/unique_dim.h>

#include "dryrun/torch/device_tensor.h"
#include "dryrun/torch/host_call.h"

namespace ebbtide::dryrun {

std::int64_t different_places(const at::Tensor& sparse) {
  const HostScope scope;
  const at::Tensor indices = sparse._indices();
  if (!is_plain_device_tensor(indices) || !is_computable(indices)) return sparse._nnz();
  return std::get<0>(at::unique_dim(host_alias(indices, true), 1)).size(1);
}

}  // namespace ebbtide::dryrun
