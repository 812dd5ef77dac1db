#include "hooks/torch_offload/python_saved.h"

#include <structmember.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "hooks/torch_offload/python_classes.h"

namespace ebbtide::offload {
namespace {

// What one recorder handed over: its numbers, as Python reads them.
struct SavedNumbers {
  PyObject_HEAD
  long long size_bytes;
  long long swapped_bytes;   // of them, how many leave the device
  long long occupied_bytes;  // that they take in a store, whole places
};

struct SavedObject : SavedNumbers {
  SavedHandles saved;  // none: nothing was left to save, or it is released
  bool is_asked;       // there is nothing left to prefetch
};

PyTypeObject* saved_type;  // set once, by make_saved_type()

PyObject* saved_prefetch(PyObject* self, PyObject*) {
  auto* saved = reinterpret_cast<SavedObject*>(self);
  if (saved->is_asked || saved->saved.empty()) Py_RETURN_NONE;
  const SavedHandles held = saved->saved;  // another thread may release it meanwhile
  saved->is_asked = is_asked_early([&] { return prefetch_all(held); });
  Py_RETURN_NONE;
}

void forget(SavedObject* saved) {
  SavedHandles forgotten = std::move(saved->saved);
  saved->saved.clear();
  // Handles of one entry count together: more than there are here means that somebody else has one.
  const auto here = static_cast<long>(forgotten.size());
  const bool is_needed = std::all_of(forgotten.begin(), forgotten.end(),
                                     [&](const auto& one) { return one.use_count() > here; });
  // What a graph still needs costs nothing now: giving up the lock would be most of it.
  if (is_needed) return forgotten.clear();
  const Unlocked unlocked;
  forgotten.clear();
}

PyObject* saved_release(PyObject* self, PyObject*) {
  forget(reinterpret_cast<SavedObject*>(self));
  Py_RETURN_NONE;
}

PyObject* saved_get(PyObject*, PyObject*) {
  PyErr_SetString(PyExc_RuntimeError, "what autograd saved together is asked for by its graph alone");
  return nullptr;
}

// All that was handed over: itself, or nothing.
PyObject* saved_saved(PyObject* self, void*) {
  return reinterpret_cast<SavedObject*>(self)->saved.empty() ? PyTuple_New(0) : PyTuple_Pack(1, self);
}

int saved_bool(PyObject* self) { return reinterpret_cast<SavedObject*>(self)->saved.empty() ? 0 : 1; }

void saved_destroy(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  auto* saved = reinterpret_cast<SavedObject*>(self);
  forget(saved);
  std::destroy_at(&saved->saved);
  PyObject_Free(self);
  Py_DECREF(type);
}

}  // namespace

bool make_saved_type() {
  static PyMethodDef methods[] = {{"prefetch", saved_prefetch, METH_NOARGS, nullptr},
                                  {"get", saved_get, METH_NOARGS, nullptr},
                                  {"release", saved_release, METH_NOARGS, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};
  static PyMemberDef members[] = {
      {"size_bytes", T_LONGLONG, offsetof(SavedNumbers, size_bytes), READONLY, nullptr},
      {"swapped_bytes", T_LONGLONG, offsetof(SavedNumbers, swapped_bytes), READONLY, nullptr},
      {"occupied_bytes", T_LONGLONG, offsetof(SavedNumbers, occupied_bytes), READONLY, nullptr},
      {nullptr, 0, 0, 0, nullptr}};
  static PyGetSetDef getters[] = {{"saved", saved_saved, nullptr, nullptr, nullptr},
                                  {nullptr, nullptr, nullptr, nullptr, nullptr}};
  saved_type = make_type("ebbtide._saving.Saved", sizeof(SavedObject),
                         {slot(Py_tp_dealloc, saved_destroy), slot(Py_tp_methods, methods),
                          slot(Py_tp_members, members), slot(Py_tp_getset, getters),
                          slot(Py_nb_bool, saved_bool)});
  return saved_type != nullptr;
}

PyObject* make_saved(Recorder::Handed handed) {
  PyObject* object = PyType_GenericAlloc(saved_type, 0);
  if (object == nullptr) return nullptr;
  auto* saved = reinterpret_cast<SavedObject*>(object);
  new (&saved->saved) SavedHandles(std::move(handed.saved));
  for (const auto& one : saved->saved) {
    saved->size_bytes += one->size_bytes();
    saved->swapped_bytes += one->swapped_bytes();
  }
  saved->occupied_bytes = handed.bytes;
  return object;
}

}  // namespace ebbtide::offload
