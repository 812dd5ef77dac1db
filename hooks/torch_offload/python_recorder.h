// Python's classes `_saving.Storages` and `_saving.Recorder`: what a layer's forward saves, recorded and handed over.
#pragma once

#include <Python.h>

namespace ebbtide::offload {

// Makes both classes; false: an exception of Python's is set. Called once, before make_storages().
bool make_recorder_types();

// Of an iterable of addresses: the storages that a recorder leaves where they are. A new reference; null: an exception of Python's is set.
PyObject* make_storages(PyObject* addresses);

}  // namespace ebbtide::offload
