// What the module `_saving` needs of Python's C interface: objects that hold something of C++, its lock, its exceptions.
#pragma once

#include <Python.h>
#include <c10/util/Exception.h>

#include <exception>
#include <memory>
#include <vector>

#include "hooks/python_lock.h"

namespace ebbtide::offload {

// An object of Python's that holds a T.
template <class T>
struct Holder {
  PyObject_HEAD
  T* held;  // null: used up

  static T*& of(PyObject* object) { return reinterpret_cast<Holder*>(object)->held; }
  static PyObject* make(PyTypeObject* type, std::unique_ptr<T> held) {
    PyObject* object = PyType_GenericAlloc(type, 0);
    if (object != nullptr) of(object) = held.release();
    return object;
  }
  static void destroy(PyObject* object) {
    PyTypeObject* type = Py_TYPE(object);
    delete of(object);
    PyObject_Free(object);
    Py_DECREF(type);
  }
};

// Python's lock is given up in the block. See Note [A thread that outlives the interpreter].
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() {
    take_python_lock([this] { PyEval_RestoreThread(state_); });
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

// Sets an exception of `kind`, a class of the module torch; returns null.
PyObject* failed(const char* kind, const char* what) noexcept;

// Sets a RuntimeError; returns null.
PyObject* failed(const char* what) noexcept;

// What `body` returns; for an exception of C++, Python's is set, and null returned.
template <class Body>
PyObject* guarded(Body body) noexcept {
  try {
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return failed("OutOfMemoryError", error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return failed(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return failed(error.what());
  }
}

// Calls `each(item)` for the items of an iterable. False: an exception of Python's is set.
template <class Each>
bool for_each(PyObject* iterable, Each each) {
  PyObject* items = PyObject_GetIter(iterable);
  if (items == nullptr) return false;
  while (PyObject* item = PyIter_Next(items)) {
    each(item);
    Py_DECREF(item);
    if (PyErr_Occurred() != nullptr) break;
  }
  Py_DECREF(items);
  return PyErr_Occurred() == nullptr;
}

template <class Function>
PyType_Slot slot(int kind, Function* value) {
  return {kind, reinterpret_cast<void*>(value)};
}

inline PyTypeObject* make_type(const char* name, int size, std::vector<PyType_Slot> slots) {
  slots.push_back({0, nullptr});
  PyType_Spec spec{name, size, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                   slots.data()};
  return reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
}

}  // namespace ebbtide::offload
