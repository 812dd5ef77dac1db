// Lets C++ code see what autograd saves for backward, as torch.autograd.graph.saved_tensors_hooks
// does in Python.
//
// Note [An engine in front]
// LibTorch asks its autograd engine for the hooks of each saved tensor, and its own engine has none; the
// engine of Python's torch answers with Python functions, which would cost several microseconds for each
// tensor. So we put an engine in front that answers with the innermost HookScope of the thread, and leaves
// all work to the engine that was there before: the threads of devices can belong to one engine only.
// Where a Python program has entered saved_tensors_hooks of its own inside a HookScope, or torch traces,
// that engine answers, too: the innermost counts. Ours lives to the end of the process.
#pragma once

#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <cstddef>
#include <memory>

namespace ebbtide::offload {

// Makes hooks for each tensor that is saved.
class SavingObserver {
 public:
  virtual ~SavingObserver() = default;
  virtual std::unique_ptr<torch::autograd::SavedVariableHooks> hooks() = 0;
};

// Whether autograd's engine is that of Python's torch, or another that is not LibTorch's own.
bool has_foreign_engine();
// To be called before any HookScope. Thread-safe.
void install_engine();

// From here to the scope's end what autograd saves in this thread goes through the observer.
class HookScope {
 public:
  explicit HookScope(SavingObserver* observer);
  ~HookScope();
  HookScope(const HookScope&) = delete;
  HookScope& operator=(const HookScope&) = delete;

 private:
  friend class HookedEngine;
  // Nobody entered hooks of Python's after it, and torch does not trace.
  bool is_innermost() const;

  SavingObserver* observer_;
  HookScope* outer_;
  std::size_t python_hooks_;  // how many were entered before it
};

}  // namespace ebbtide::offload
