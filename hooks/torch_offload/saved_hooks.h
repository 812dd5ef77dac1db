// Lets C++ code see what autograd saves for backward, as torch.autograd.graph.saved_tensors_hooks
// does in Python.
//
// Note [An engine in front]
// LibTorch asks its autograd engine for the hooks of each saved tensor, and its own engine has none; the
// engine of Python's torch answers with Python functions. So we put an engine in front that answers with
// the innermost HookScope of the thread, and leaves all work to LibTorch's: the threads of devices can
// belong to one engine only. It lives to the end of the process.
#pragma once

#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <memory>

namespace ebbtide::offload {

// Makes hooks for each tensor that is saved.
class SavingObserver {
 public:
  virtual ~SavingObserver() = default;
  virtual std::unique_ptr<torch::autograd::SavedVariableHooks> hooks() = 0;
};

// To be called before any HookScope. Thread-safe. Throws std::runtime_error if autograd's engine is
// not LibTorch's own.
void install_engine();

// From here to the scope's end what autograd saves in this thread goes through the observer.
class HookScope {
 public:
  explicit HookScope(SavingObserver* observer);
  ~HookScope();
  HookScope(const HookScope&) = delete;
  HookScope& operator=(const HookScope&) = delete;

 private:
  SavingObserver* outer_;
};

}  // namespace ebbtide::offload
