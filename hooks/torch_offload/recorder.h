// What autograd saves while a piece or an attention runs, handed to a store.
//
// Note [Saved late]
// A saved tensor is handed over when the run has ended, not when it is packed: by then what no
// output depends on has died with its graph, and the storages that others hold anyway (the layer's
// input, attention's output) are known and only noted. Tensors are told apart by storage and
// version while all of them are alive, so that an address used twice cannot be mistaken for one
// tensor.
#pragma once

#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "hooks/torch_offload/saved_hooks.h"
#include "hooks/torch_offload/store.h"
#include "hooks/torch_offload/tensor_layout.h"

namespace ebbtide::offload {

// A whole-length tensor that is put back for backward: saved views of it need no bytes of their
// own.
class Landing {
 public:
  explicit Landing(const at::Tensor& tensor);
  StorageId storage() const { return storage_; }
  // Puts back these values, in the layout that the views were taken of.
  void put(const at::Tensor& tensor);
  void drop() { tensor_.reset(); }
  at::Tensor view(at::IntArrayRef size, at::IntArrayRef stride, std::int64_t offset) const;

 private:
  at::Tensor tensor_;
  StorageId storage_;
  std::int64_t offset_, span_;
  std::vector<std::int64_t> size_, stride_;
};

using LandingHandle = std::shared_ptr<Landing>;

class Packed;

// Collects what autograd saves during one run, then hands it to a store. Must outlive its
// HookScope.
class Recorder final : public SavingObserver {
 public:
  // `external`: storages that live on elsewhere: parameters, buffers.
  explicit Recorder(const std::unordered_set<StorageId>* external = nullptr)
      : external_(external) {}

  std::unique_ptr<torch::autograd::SavedVariableHooks> hooks() override;
  // Bytes of a store that hand_over() would take, but for views of `others`. Nothing moves.
  std::int64_t measure(const Tensors& others) const;
  std::int64_t measure(const std::unordered_set<StorageId>& elsewhere) const;
  // Gives what is still needed to `store`, together (or one by one, if it need not return
  // together); views of `landings` are only noted. See Note [Saved late].
  SavedHandles hand_over(Store& store, const std::vector<LandingHandle>& landings,
                                     bool together = true);
  // The same together, and the bytes that it takes; nothing, and nothing has moved, if those were
  // more than `limit`.
  struct Handed {
    SavedHandles saved;
    std::int64_t bytes = 0;
  };
  std::optional<Handed> hand_over_within(std::int64_t limit, Store& store,
                                         const std::vector<LandingHandle>& landings);

 private:
  // One tensor that autograd saved, and where it is to go: a landing, or one of `Wanted::tensors`.
  struct User {
    std::shared_ptr<Packed> packed;
    LandingHandle landing;
    std::size_t number = 0;
    std::int64_t begin = 0;  // elements of the storage before that one
  };
  struct Wanted {
    c10::SmallVector<at::Tensor, 4> tensors;
    c10::SmallVector<User, 4> users;
    std::int64_t bytes = 0;
  };
  friend class RecordingHooks;
  std::shared_ptr<Packed> pack(const at::Tensor& tensor);
  bool stays(const at::Tensor& tensor) const;
  // Calls `each` for those that are still needed; they live until `each` has let go of them.
  template <class Each>
  void for_each_alive(Each each) const;
  Wanted wanted(const std::vector<LandingHandle>& landings) const;
  // Tells every user where its bytes are, and forgets them.
  void note(const Wanted& wanted, const SavedHandles& saved);

  const std::unordered_set<StorageId>* external_;
  c10::SmallVector<std::weak_ptr<Packed>, 4> packed_;
};

}  // namespace ebbtide::offload
