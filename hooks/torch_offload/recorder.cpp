#include "hooks/torch_offload/recorder.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <tuple>

namespace ebbtide::offload {
namespace {

constexpr std::size_t kSmallBytes = 4096;  // not worth a copy: seeds, scalars, rows of statistics

// First element and number of elements to save of a tensor's storage. Of a view with gaps (one
// third of a fused projection) the whole storage: the other parts will ask for it, too.
struct Extent {
  std::int64_t begin, count;
};

Extent extent_of(const at::Tensor& tensor) {
  const std::int64_t span = span_of(tensor);
  if (span <= tensor.numel()) return {tensor.storage_offset(), span};
  const auto bytes = static_cast<std::int64_t>(tensor.storage().nbytes());
  return {0, bytes / tensor.element_size()};
}

}  // namespace

Landing::Landing(const at::Tensor& tensor)
    : tensor_(tensor),
      storage_(storage_of(tensor)),
      offset_(tensor.storage_offset()),
      span_(span_of(tensor)),
      size_(tensor.sizes().vec()),
      stride_(tensor.strides().vec()) {}

void Landing::put(const at::Tensor& tensor) {
  bool alike = true;
  for (std::size_t d = 0; d < size_.size(); ++d) {
    alike = alike && (size_[d] == 1 || stride_[d] == tensor.stride(static_cast<std::int64_t>(d)));
  }
  tensor_ = alike ? tensor
                  : at::empty({span_}, tensor.options()).as_strided(size_, stride_).copy_(tensor);
}

at::Tensor Landing::view(at::IntArrayRef size, at::IntArrayRef stride, std::int64_t offset) const {
  if (!tensor_.defined()) {
    throw std::runtime_error("offload: a saved view was asked for outside of its layer's backward");
  }
  return tensor_.as_strided(size, stride, offset - offset_ + tensor_.storage_offset());
}

// One tensor that autograd saved: its place, and where its bytes are.
class Packed {
 public:
  explicit Packed(const at::Tensor& saved) : tensor(saved.detach()), witness_(saved, "a tensor") {}

  // Until it is handed over, or if it stays, its bytes are here.
  at::Tensor tensor;

  void check() const { witness_.check(); }
  void hand_over(LandingHandle landing) {
    note(0);
    landing_ = std::move(landing);
  }
  void hand_over(SavedHandle saved, std::int64_t begin) {
    note(begin);
    saved_ = std::move(saved);
  }
  at::Tensor unpack() const {
    if (tensor.defined()) {
      check();
      return tensor;
    }
    if (landing_ != nullptr) return landing_->view(size_, stride_, offset_);
    const at::Tensor base = saved_->get();
    return base.as_strided(size_, stride_, base.storage_offset() + offset_);
  }

 private:
  // Its place is at `begin` elements less than in its storage.
  void note(std::int64_t begin) {
    size_ = tensor.sizes().vec();
    stride_ = tensor.strides().vec();
    offset_ = tensor.storage_offset() - begin;
    tensor.reset();
  }

  Witness witness_;
  std::vector<std::int64_t> size_, stride_;
  std::int64_t offset_ = 0;
  LandingHandle landing_;
  SavedHandle saved_;
};

class RecordingHooks final : public torch::autograd::SavedVariableHooks {
 public:
  explicit RecordingHooks(Recorder* recorder) : recorder_(recorder) {}
  void call_pack_hook(const at::Tensor& tensor) override { packed_ = recorder_->pack(tensor); }
  at::Tensor call_unpack_hook() override { return packed_->unpack(); }

 private:
  Recorder* recorder_;  // for packing, which follows at once
  std::shared_ptr<Packed> packed_;
};

std::unique_ptr<torch::autograd::SavedVariableHooks> Recorder::hooks() {
  return std::make_unique<RecordingHooks>(this);
}

std::shared_ptr<Packed> Recorder::pack(const at::Tensor& tensor) {
  auto packed = std::make_shared<Packed>(tensor);
  if (!stays(tensor)) packed_.push_back(packed);
  return packed;
}

bool Recorder::stays(const at::Tensor& tensor) const {
  if (tensor.layout() != at::kStrided || !tensor.has_storage()) return true;
  if (tensor.nbytes() < kSmallBytes) return true;
  if (external_ != nullptr) return external_->count(storage_of(tensor)) != 0;
  const at::TensorBase& base = tensor.is_view() ? tensor._base() : tensor;
  return base.is_leaf() && base.requires_grad();  // a parameter
}

std::vector<std::shared_ptr<Packed>> Recorder::alive() const {
  std::vector<std::shared_ptr<Packed>> found;
  for (const auto& weak : packed_) {
    if (auto packed = weak.lock()) found.push_back(std::move(packed));
  }
  return found;
}

std::int64_t Recorder::measure(const Tensors& others) const {
  std::unordered_set<StorageId> elsewhere;
  for (const auto& other : others) elsewhere.insert(storage_of(other));
  std::map<std::tuple<StorageId, std::int64_t, std::int64_t>, std::int64_t> sizes;
  for (const auto& packed : alive()) {
    const at::Tensor& tensor = packed->tensor;
    if (elsewhere.count(storage_of(tensor)) != 0) continue;
    const Extent extent = extent_of(tensor);
    sizes[{storage_of(tensor), extent.begin, extent.count}] = extent.count * tensor.element_size();
  }
  std::int64_t total = 0;
  for (const auto& [_, bytes] : sizes) total += bytes;
  return total;
}

std::vector<SavedHandle> Recorder::hand_over(Store& store,
                                             const std::vector<LandingHandle>& landings,
                                             bool together) {
  using Key = std::tuple<StorageId, std::int64_t, std::int64_t, at::ScalarType, std::int64_t>;
  std::map<Key, std::size_t> numbers;
  Tensors wanted;
  std::vector<std::tuple<std::shared_ptr<Packed>, std::size_t, std::int64_t>> users;
  const auto found = alive();
  Tensors held;  // keeps every storage alive until the last is told apart
  for (const auto& packed : found) {
    packed->check();
    held.push_back(packed->tensor);
    const at::Tensor tensor = held.back();
    const auto landing = std::find_if(landings.begin(), landings.end(), [&](const auto& one) {
      return one != nullptr && one->storage() == storage_of(tensor);
    });
    if (landing != landings.end()) {
      packed->hand_over(*landing);
      continue;
    }
    const Extent extent = extent_of(tensor);
    const Key key{storage_of(tensor), extent.begin, extent.count, tensor.scalar_type(),
                  tensor._version()};
    const auto [at, is_new] = numbers.try_emplace(key, wanted.size());
    if (is_new) wanted.push_back(tensor.as_strided({extent.count}, {1}, extent.begin));
    users.emplace_back(packed, at->second, extent.begin);
  }
  packed_.clear();
  std::vector<SavedHandle> saved;
  if (together && !wanted.empty()) saved = store.save_all(wanted);
  for (std::size_t i = saved.size(); i < wanted.size(); ++i) {
    saved.push_back(store.save_all({wanted[i]}).front());
  }
  for (const auto& [packed, number, begin] : users) packed->hand_over(saved[number], begin);
  return saved;
}

}  // namespace ebbtide::offload
