// The module `_saving`: what Python calls for each part of a piece, in python_shim/ebbtide/_offload/_native_saving.py.
//
// A call of a class of torch's (python_store.cpp), or of a C function through ctypes, costs the host
// several times as much as one of these, and would be most of what saving costs. Python's stable
// interface of 3.10: one build serves every later version. Stores and landings belong to classes of
// torch's, whose address() names them here: the caller keeps them alive. Not thread-safe for one
// object; Python's lock is given up while tensors move.
#include <Python.h>

#include "hooks/torch_offload/python_classes.h"
#include "hooks/torch_offload/python_recorder.h"
#include "hooks/torch_offload/python_saved.h"
#include "hooks/torch_offload/room.h"

namespace ebbtide::offload {
namespace {

// storages(addresses of storages that recorders leave where they are).
PyObject* storages(PyObject*, PyObject* addresses) { return make_storages(addresses); }

// prefetch(address of a batch): whether there is nothing left to ask.
PyObject* prefetch(PyObject*, PyObject* address) {
  auto* batch = static_cast<SavedBatch*>(PyLong_AsVoidPtr(address));
  if (PyErr_Occurred() != nullptr) return nullptr;
  return PyBool_FromLong(is_asked_early([&] { return batch->prefetch(); }));
}

// has_room(index of a CUDA device, share of its memory that may be used, bytes of a layer's input, bytes to fetch): room.h.
PyObject* room(PyObject*, PyObject* arguments) {
  int index = 0;
  double share = 1;
  long long input = 0, fetched = 0;
  if (PyArg_ParseTuple(arguments, "idLL", &index, &share, &input, &fetched) == 0) return nullptr;
  const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
  return PyBool_FromLong(has_room(device, share, input, fetched));
}

// headroom(index of a CUDA device, share of its memory that may be used), or None: room.h.
PyObject* headroom_of(PyObject*, PyObject* arguments) {
  int index = 0;
  double share = 1;
  if (PyArg_ParseTuple(arguments, "id", &index, &share) == 0) return nullptr;
  const auto found = headroom(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)), share);
  return found ? PyLong_FromLongLong(*found) : Py_NewRef(Py_None);
}

}  // namespace
}  // namespace ebbtide::offload

PyMODINIT_FUNC PyInit__saving() {
  using namespace ebbtide::offload;
  static PyMethodDef functions[] = {{"storages", storages, METH_O, nullptr},
                                    {"prefetch", prefetch, METH_O, nullptr},
                                    {"has_room", room, METH_VARARGS, nullptr},
                                    {"headroom", headroom_of, METH_VARARGS, nullptr},
                                    {nullptr, nullptr, 0, nullptr}};
  static PyModuleDef definition{PyModuleDef_HEAD_INIT, "_saving", nullptr, -1, functions,
                                nullptr, nullptr, nullptr, nullptr};
  return make_recorder_types() && make_saved_type() ? PyModule_Create(&definition) : nullptr;
}
