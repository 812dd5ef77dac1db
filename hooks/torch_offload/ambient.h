// What runs of a layer's pieces must find around them: random numbers, autocast, kernels of attention.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace ebbtide::offload {

// Moments of one device's default generator. Equal moments in a row are one and the same tensor.
class RandomStates {
 public:
  explicit RandomStates(at::Device device);
  at::Tensor now();
  // Goes on from a moment that now() returned.
  void set(const at::Tensor& state);

 private:
  at::Generator generator_;
  at::Tensor last_;
};

// At its end random numbers go on as if nothing had been drawn in it.
class UndisturbedRandom {
 public:
  explicit UndisturbedRandom(at::Device device) : states_(device), state_(states_.now()) {}
  ~UndisturbedRandom() { states_.set(state_); }
  UndisturbedRandom(const UndisturbedRandom&) = delete;
  UndisturbedRandom& operator=(const UndisturbedRandom&) = delete;

 private:
  RandomStates states_;
  at::Tensor state_;
};

// Autocast as it was when this was made.
struct Autocast {
  explicit Autocast(at::Device device);
  at::DeviceType kind;
  bool is_enabled;
  at::ScalarType type;
};

// Autocast as it was, in a scope. Casts are not remembered: they would only be held.
class AutocastAgain {
 public:
  explicit AutocastAgain(const Autocast& autocast);
  ~AutocastAgain();
  AutocastAgain(const AutocastAgain&) = delete;
  AutocastAgain& operator=(const AutocastAgain&) = delete;

 private:
  Autocast outer_;
  bool was_cached_;
};

// Which of torch's attention kernels were allowed when this was made, and which preferred to others. To be made
// after what is to run alike: with its first attention torch sets the order that suits the device.
class AttentionBackends {
 public:
  AttentionBackends();
  void allow() const;

 private:
  bool flash_, memory_efficient_, math_, cudnn_, overrideable_;
  std::vector<std::int64_t> order_;
};

// Attention kernels as they were, in a scope.
class AttentionBackendsAgain {
 public:
  explicit AttentionBackendsAgain(const AttentionBackends& backends) { backends.allow(); }
  ~AttentionBackendsAgain() { outer_.allow(); }
  AttentionBackendsAgain(const AttentionBackendsAgain&) = delete;
  AttentionBackendsAgain& operator=(const AttentionBackendsAgain&) = delete;

 private:
  AttentionBackends outer_;
};

}  // namespace ebbtide::offload
