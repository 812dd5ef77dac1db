#include "hooks/torch_offload/recorder.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <stdexcept>

#include "hooks/torch_offload/swap_engine.h"

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

// These elements of its storage, in a row. `tensor` itself if it is them, in whatever shape.
at::Tensor stretch_of(const at::Tensor& tensor, const Extent& extent) {
  if (extent.count == tensor.numel() && tensor.is_contiguous()) return tensor;
  return part_of(tensor, {extent.count}, {1}, extent.begin - tensor.storage_offset());
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
  return part_of(tensor_, size, stride, offset - offset_);
}

// One tensor that autograd saved: its place, and where its bytes are.
class Packed {
 public:
  // Never the tensor itself: a result that its own node saves would keep that node for ever.
  Packed(const at::Tensor& saved, bool is_plain)
      : tensor(is_plain ? alias_of(saved) : saved.detach()), witness_(saved, "a tensor") {}

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
    return saved_->get_as(size_, stride_, offset_);
  }

 private:
  // Its place is at `begin` elements less than in its storage.
  void note(std::int64_t begin) {
    size_ = tensor.sizes();
    stride_ = tensor.strides();
    offset_ = tensor.storage_offset() - begin;
    tensor.reset();
  }

  Witness witness_;
  at::DimVector size_, stride_;
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
  const bool is_plain = tensor.layout() == at::kStrided && tensor.has_storage() &&
                        !tensor.unsafeGetTensorImpl()->is_python_dispatch();
  auto packed = std::make_shared<Packed>(tensor, is_plain);
  if (is_plain && !stays(tensor)) packed_.push_back(packed);
  return packed;
}

// Whether a plain tensor is not worth a place in a store, or has one already.
bool Recorder::stays(const at::Tensor& tensor) const {
  if (tensor.nbytes() < kSmallBytes) return true;
  if (external_ != nullptr) return external_->count(storage_of(tensor)) != 0;
  const at::TensorBase& base = tensor.is_view() ? tensor._base() : tensor;
  return base.is_leaf() && base.requires_grad();  // a parameter
}

template <class Each>
void Recorder::for_each_alive(Each each) const {
  for (const auto& weak : packed_) {
    if (auto packed = weak.lock()) each(std::move(packed));
  }
}

std::int64_t Recorder::measure(const Tensors& others) const {
  std::unordered_set<StorageId> elsewhere;
  for (const auto& other : others) elsewhere.insert(storage_of(other));
  return measure(elsewhere);
}

std::int64_t Recorder::measure(const std::unordered_set<StorageId>& elsewhere) const {
  BytesMap<std::int64_t> sizes;
  std::vector<std::shared_ptr<Packed>> told_apart;  // their storages live until the last one is
  told_apart.reserve(packed_.size());
  for_each_alive([&](std::shared_ptr<Packed> packed) {
    const at::Tensor& tensor = packed->tensor;
    if (elsewhere.count(storage_of(tensor)) != 0) return;
    const Extent extent = extent_of(tensor);
    sizes[{.storage = storage_of(tensor), .begin = extent.begin, .count = extent.count}] =
        SwapEngine::occupied(extent.count * tensor.element_size());
    told_apart.push_back(std::move(packed));
  });
  std::int64_t total = 0;
  for (const auto& [_, bytes] : sizes) total += bytes;
  return total;
}

Recorder::Wanted Recorder::wanted(const std::vector<LandingHandle>& landings) const {
  BytesNumbers numbers(packed_.size());
  Wanted found;
  found.tensors.reserve(packed_.size());
  found.users.reserve(packed_.size());
  for_each_alive([&](std::shared_ptr<Packed> packed) {
    packed->check();
    const at::Tensor& tensor = packed->tensor;
    const StorageId storage = storage_of(tensor);
    const auto landing = std::find_if(landings.begin(), landings.end(), [&](const auto& one) {
      return one != nullptr && one->storage() == storage;
    });
    if (landing != landings.end()) {
      found.users.push_back({std::move(packed), *landing});
      return;
    }
    const Extent extent = extent_of(tensor);
    const auto [number, is_new] =
        numbers.of({storage, extent.begin, extent.count, tensor.scalar_type(),
                    static_cast<std::uint32_t>(tensor._version())});
    if (is_new) {
      found.tensors.push_back(stretch_of(tensor, extent));
      found.bytes += SwapEngine::occupied(bytes_of(found.tensors.back()));
    }
    found.users.push_back({std::move(packed), nullptr, number, extent.begin});
  });
  return found;
}

void Recorder::note(const Wanted& wanted, const SavedHandles& saved) {
  for (const auto& user : wanted.users) {
    if (user.landing != nullptr) {
      user.packed->hand_over(user.landing);
    } else {
      user.packed->hand_over(saved[user.number], user.begin);
    }
  }
  packed_.clear();
}

SavedHandles Recorder::hand_over(Store& store,
                                             const std::vector<LandingHandle>& landings,
                                             bool together) {
  // Storages live until the last is told apart: what they are told by are addresses.
  const Wanted found = wanted(landings);
  SavedHandles saved;
  if (together && !found.tensors.empty()) saved = store.save_all(found.tensors);
  for (std::size_t i = saved.size(); i < found.tensors.size(); ++i) {
    saved.push_back(store.save_all({found.tensors[i]}).front());
  }
  note(found, saved);
  return saved;
}

std::optional<Recorder::Handed> Recorder::hand_over_within(
    std::int64_t limit, Store& store, const std::vector<LandingHandle>& landings) {
  const Wanted found = wanted(landings);
  if (found.bytes > limit) {
    packed_.clear();
    return std::nullopt;
  }
  Handed handed{{}, found.bytes};
  if (!found.tensors.empty()) handed.saved = store.save_all(found.tensors);
  note(found, handed.saved);
  return handed;
}

}  // namespace ebbtide::offload
