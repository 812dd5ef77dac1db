// Where saved tensors are kept until backward asks for them: the protocol, and the device itself.
//
// A store takes over the bytes of a tensor and gives back the same bits in the same type, shape and
// strides. What was saved is forgotten with its last handle: an abandoned graph leaks nothing.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace ebbtide::offload {

using Tensors = std::vector<at::Tensor>;

// One tensor in a store. Not thread-safe: backward has one thread per device.
class Saved {
 public:
  virtual ~Saved() = default;
  virtual std::int64_t size_bytes() const = 0;
  // How many of them left the device, or are about to.
  virtual std::int64_t swapped_bytes() const = 0;
  // Asks for it early. Never waits on the host; a second call does nothing. Whether it is there, or on
  // its way now.
  virtual bool prefetch() = 0;
  // The tensor, usable on the current stream. Throws std::runtime_error if it was changed in place.
  virtual at::Tensor get() = 0;
  // The same bytes in another shape, whose first element is `begin` elements behind that of get().
  virtual at::Tensor get_as(at::IntArrayRef size, at::IntArrayRef stride, std::int64_t begin) = 0;
  // Whether the program's own tensor is held, so that get() must look for changes each time.
  virtual bool is_here() const = 0;
  // Whether it, or what was made of it, was changed in place: get() will throw.
  virtual bool is_changed() const = 0;
};

using SavedHandle = std::shared_ptr<Saved>;
using SavedHandles = c10::SmallVector<SavedHandle, 1>;  // a single one needs no memory of its own
// Of one store: saved, not released, and on the device to stay.
using HeldBytes = std::shared_ptr<std::atomic<std::int64_t>>;

// The caller drops its own reference to a tensor that it has saved.
class Store {
 public:
  virtual ~Store() = default;
  // Tensors that are needed together: aliases (alias_of) that are the store's own from now on.
  virtual SavedHandles save_all(at::TensorList tensors) = 0;
  // What was saved before the last such call has had its time: it leaves the device now.
  virtual void layer_ended() = 0;
};

// Saved tensors stay where they are.
class KeepStore final : public Store {
 public:
  SavedHandles save_all(at::TensorList tensors) override;
  void layer_ended() override {}
  std::int64_t held_bytes() const { return *held_; }

 private:
  HeldBytes held_ = std::make_shared<std::atomic<std::int64_t>>(0);
};

// Notices an in-place change of a tensor without keeping its bytes.
class Witness {
 public:
  // `name`: of static storage.
  Witness(const at::Tensor& tensor, const char* name);
  // Throws std::runtime_error if the tensor was changed in place since.
  void check() const;
  bool has_changed() const { return counter_.current_version() != version_; }

 private:
  c10::VariableVersion counter_;
  std::uint32_t version_;
  const char* name_;
};

}  // namespace ebbtide::offload
