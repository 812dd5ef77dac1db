// Python's class `_saving.Saved`: what one recorder handed over.
#pragma once

#include <Python.h>

#include "hooks/torch_offload/python_objects.h"
#include "hooks/torch_offload/recorder.h"

namespace ebbtide::offload {

// Makes the class; false: an exception of Python's is set. Called once, before make_saved().
bool make_saved_type();

// A new reference; null: an exception of Python's is set.
PyObject* make_saved(Recorder::Handed handed);

// A tensor that cannot come yet is asked for again when it is needed, and fails there with its reason.
bool is_asked_early(const auto& prefetch) {
  const Unlocked unlocked;
  try {
    return prefetch();
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace ebbtide::offload
