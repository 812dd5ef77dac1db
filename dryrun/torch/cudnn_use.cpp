#include "dryrun/torch/cudnn_use.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/grid_sampler_2d.h>
#include <ATen/ops/grid_sampler_2d_backward.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <dlfcn.h>

#include <mutex>
#include <string_view>
#include <unordered_map>

namespace ebbtide::dryrun {

namespace {

using torch::jit::Stack;

std::string_view folder_of(const void* code) {
  Dl_info info{};
  if (code == nullptr || dladdr(code, &info) == 0) return {};
  const std::string_view path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

// Whether the process has this function from a library beside this one.
bool is_stand_in(const char* function) {
  return folder_of(dlsym(RTLD_DEFAULT, function)) == folder_of(reinterpret_cast<const void*>(&is_stand_in));
}

// Of an argument that may be none.
std::optional<at::Tensor> optional_tensor(const c10::IValue& value) {
  return value.isTensor() && value.toTensor().defined() ? std::optional(value.toTensor()) : std::nullopt;
}

at::Tensor nothing_reserved(const at::Tensor& like) { return at::empty({0}, like.options().dtype(at::kByte)); }

// input, weight, bias, running mean and variance, training, momentum, epsilon
Stack batch_norm(const Stack& a) {
  const at::Tensor input = a[0].toTensor();
  auto [out, mean, scale] = at::native_batch_norm(input, optional_tensor(a[1]), optional_tensor(a[2]), optional_tensor(a[3]),
                                                  optional_tensor(a[4]), a[5].toBool(), a[6].toDouble(), a[7].toDouble());
  return {out, mean, scale, nothing_reserved(input)};
}

// input, gradient, weight, running mean and variance, the batch's own, epsilon, what was reserved
Stack batch_norm_backward(const Stack& a) {
  auto [input, weight, bias] = at::native_batch_norm_backward(
      a[1].toTensor(), a[0].toTensor(), optional_tensor(a[2]), optional_tensor(a[3]), optional_tensor(a[4]),
      optional_tensor(a[5]), optional_tensor(a[6]), /*train=*/true, a[7].toDouble(), {true, true, true});
  return {input, weight, bias};
}

// cuDNN's sampler is bilinear, with zeros beyond the edges, and corners that are the corner pixels' centres.
constexpr std::int64_t kBilinear = 0, kZeros = 0;

Stack sample(const Stack& a) {
  return {at::grid_sampler_2d(a[0].toTensor(), a[1].toTensor(), kBilinear, kZeros, /*align_corners=*/true)};
}

Stack sample_backward(const Stack& a) {
  auto [input, grid] = at::grid_sampler_2d_backward(a[2].toTensor(), a[0].toTensor(), a[1].toTensor(), kBilinear, kZeros,
                                                    /*align_corners=*/true, {true, true});
  return {input, grid};
}

using Replacement = Stack (*)(const Stack&);
const std::unordered_map<std::string_view, Replacement> kReplacements{
    {"aten::cudnn_batch_norm", &batch_norm},
    {"aten::cudnn_batch_norm_backward", &batch_norm_backward},
    {"aten::cudnn_grid_sampler", &sample},
    {"aten::cudnn_grid_sampler_backward", &sample_backward}};

// How many operators are in progress that must not find cuDNN, and what the program had chosen before.
std::mutex switching;
int absences = 0;
bool was_enabled = false;

}  // namespace

void set_up_cudnn() {
  if (is_stand_in("cudnnCreate")) return;
  at::globalContext().setUserEnabledCuDNN(false);
  at::globalContext().setSDPUseCuDNN(false);
}

bool run_without_cudnn(const c10::OperatorHandle& op, Stack* stack) {
  const auto found = kReplacements.find(op.operator_name().name);
  if (found == kReplacements.end() || !op.operator_name().overload_name.empty()) return false;
  const std::size_t count = op.schema().arguments().size();
  const Stack arguments(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end());
  Stack results = found->second(arguments);
  torch::jit::drop(*stack, count);
  stack->insert(stack->end(), results.begin(), results.end());
  return true;
}

CudnnAbsent::CudnnAbsent(bool is_absent) : is_on_(is_absent) {
  if (!is_on_) return;
  const std::lock_guard lock(switching);
  if (absences++ > 0) return;
  was_enabled = at::globalContext().userEnabledCuDNN();
  at::globalContext().setUserEnabledCuDNN(false);
}

CudnnAbsent::~CudnnAbsent() {
  if (!is_on_) return;
  const std::lock_guard lock(switching);
  if (--absences == 0) at::globalContext().setUserEnabledCuDNN(was_enabled);
}

}  // namespace ebbtide::dryrun
