// The module `_saving`: what Python calls for each part of a piece, in python_shim/ebbtide/_offload/_native_saving.py.
//
// A call of a class of torch's (python_store.cpp), or of a C function through ctypes, costs the host
// several times as much as one of these, and would be most of what saving costs. Python's stable
// interface of 3.10: one build serves every later version. Stores and landings belong to classes of
// torch's, whose address() names them here: the caller keeps them alive. Not thread-safe for one
// object; Python's lock is given up while tensors move.
#include <Python.h>
#include <structmember.h>

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "hooks/python_lock.h"
#include "hooks/torch_offload/python_classes.h"
#include "hooks/torch_offload/room.h"
#include "hooks/torch_offload/saved_hooks.h"

namespace ebbtide::offload {
namespace {

using Storages = std::shared_ptr<const std::unordered_set<StorageId>>;

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

// What one recorder saw, and its time.
struct Recording {
  explicit Recording(Storages storages) : external(std::move(storages)), recorder(external.get()) {}

  Storages external;
  Recorder recorder;
  std::optional<HookScope> scope;
};

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

// Set once, by the module's initialisation.
PyTypeObject *storages_type, *recorder_type, *saved_type;
PyObject *address_name, *count_name;

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

// The lines of a message as one.
std::string one_line(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  std::string line;
  for (std::size_t begin = text.find_first_not_of(kSpace); begin != std::string::npos;) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    if (!line.empty()) line += "; ";
    line.append(text, begin, text.find_last_not_of(kSpace, end - 1) + 1 - begin);
    begin = text.find_first_not_of(kSpace, end);
  }
  return line;
}

PyObject* failed(const char* kind, const char* what) {
  PyObject* torch = PyImport_ImportModule("torch");
  PyObject* type = torch != nullptr ? PyObject_GetAttrString(torch, kind) : nullptr;
  if (type != nullptr) PyErr_SetString(type, one_line(what).c_str());
  Py_XDECREF(type);
  Py_XDECREF(torch);
  return nullptr;
}

// What `body` returns; for an exception of C++, Python's is set, and null returned.
template <class Body>
PyObject* guarded(Body body) noexcept {
  try {
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return failed("OutOfMemoryError", error.what_without_backtrace());
  } catch (const c10::Error& error) {
    PyErr_SetString(PyExc_RuntimeError, one_line(error.what_without_backtrace()).c_str());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, one_line(error.what()).c_str());
  }
  return nullptr;
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

bool read_storages(PyObject* iterable, std::unordered_set<StorageId>* found) {
  return for_each(iterable, [&](PyObject* item) { found->insert(PyLong_AsVoidPtr(item)); });
}

PyObject* storages(PyObject*, PyObject* addresses) {
  return guarded([&]() -> PyObject* {
    std::unordered_set<StorageId> found;
    if (!read_storages(addresses, &found)) return nullptr;
    auto shared = std::make_shared<const std::unordered_set<StorageId>>(std::move(found));
    return Holder<Storages>::make(storages_type, std::make_unique<Storages>(std::move(shared)));
  });
}

PyObject* storages_recorder(PyObject* self, PyObject*) {
  return guarded([&] {
    install_engine();
    auto made = std::make_unique<Recording>(*Holder<Storages>::of(self));
    return Holder<Recording>::make(recorder_type, std::move(made));
  });
}

Recording* recording_of(PyObject* self) {
  Recording* recording = Holder<Recording>::of(self);
  if (recording == nullptr) PyErr_SetString(PyExc_RuntimeError, "a recorder was used after its end");
  return recording;
}

PyObject* recorder_hooks(PyObject* self, PyObject*) {
  Py_INCREF(self);
  return self;
}

PyObject* recorder_enter(PyObject* self, PyObject*) {
  Recording* recording = recording_of(self);
  if (recording == nullptr) return nullptr;
  recording->scope.emplace(&recording->recorder);
  Py_RETURN_NONE;
}

PyObject* recorder_exit(PyObject* self, PyObject*) {
  if (Recording* recording = Holder<Recording>::of(self)) recording->scope.reset();
  Py_RETURN_NONE;
}

// measure(storages): bytes of a store that hand_over() would need, but for those of storages elsewhere.
PyObject* recorder_measure(PyObject* self, PyObject* elsewhere) {
  const Recording* recording = recording_of(self);
  std::unordered_set<StorageId> found;
  if (recording == nullptr || !read_storages(elsewhere, &found)) return nullptr;
  return guarded([&] { return PyLong_FromLongLong(recording->recorder.measure(found)); });
}

// The pointer that an object of Python's has as its `address`; null: an exception is set, if it is not that.
void* address_of(PyObject* object) {
  PyObject* address = PyObject_GetAttr(object, address_name);
  if (address == nullptr) return nullptr;
  void* pointer = PyLong_AsVoidPtr(address);
  Py_DECREF(address);
  return pointer;
}

// Of landings, as Python holds them, those of C++.
bool read_landings(PyObject* iterable, std::vector<LandingHandle>* found) {
  if (PyList_Check(iterable) && PyList_Size(iterable) == 0) return true;
  return for_each(iterable, [&](PyObject* item) {
    if (void* landing = address_of(item)) found->push_back(static_cast<PythonLanding*>(landing)->landing);
  });
}

// Bytes, as an integer or a float of Python's; none at all for what is beyond all bytes, such as infinity.
bool read_limit(PyObject* number, std::int64_t* limit) {
  constexpr std::int64_t kNoLimit = std::int64_t{1} << 62;
  int overflow = 0;
  if (PyFloat_Check(number)) {
    const double bytes = PyFloat_AsDouble(number);
    *limit = std::abs(bytes) < double{kNoLimit} ? static_cast<std::int64_t>(bytes) : bytes < 0 ? -1 : kNoLimit;
    return true;
  }
  *limit = PyLong_AsLongLongAndOverflow(number, &overflow);
  if (overflow != 0) *limit = overflow < 0 ? -1 : kNoLimit;
  return PyErr_Occurred() == nullptr;
}

PyObject* saved_of(Recorder::Handed handed) {
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

// Tells the store's `count`, if it is not None, of what was handed over, and returns that.
PyObject* counted(PyObject* store, PyObject* saved) {
  PyObject* count = saved != nullptr ? PyObject_GetAttr(store, count_name) : nullptr;
  PyObject* told = count;
  if (count != nullptr && count != Py_None) {
    told = PyObject_CallFunctionObjArgs(count, saved, nullptr);
    Py_DECREF(count);
  }
  if (told == nullptr) Py_XDECREF(std::exchange(saved, nullptr));
  Py_XDECREF(told);
  return saved;
}

// hand_over(store of Python's, landings, limit in bytes): hands over what was recorded to the store at
// the `address` that it names, and ends the recorder; views of the landings are only noted. None, and
// nothing has moved, if it were more than the limit.
PyObject* recorder_hand_over(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "hand_over() takes a store, landings and a limit");
    return nullptr;
  }
  std::int64_t limit = 0;
  std::vector<LandingHandle> landings;
  auto* store = static_cast<Store*>(address_of(arguments[0]));
  if (store == nullptr || !read_landings(arguments[1], &landings) || !read_limit(arguments[2], &limit) ||
      recording_of(self) == nullptr) {
    return nullptr;
  }
  return guarded([&]() -> PyObject* {
    std::optional<Recorder::Handed> handed;
    {
      const Unlocked unlocked;
      const std::unique_ptr<Recording> ours(std::exchange(Holder<Recording>::of(self), nullptr));
      handed = ours->recorder.hand_over_within(limit, *store, landings);
    }
    if (!handed) Py_RETURN_NONE;
    return counted(arguments[0], saved_of(*std::move(handed)));
  });
}

// A tensor that cannot come yet is asked for again when it is needed, and fails there with its reason.
bool is_asked_early(const auto& prefetch) {
  const Unlocked unlocked;
  try {
    return prefetch();
  } catch (const std::exception&) {
    return false;
  }
}

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

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

PyCFunction plain(FastFunction function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

template <class Function>
PyType_Slot slot(int kind, Function* value) {
  return {kind, reinterpret_cast<void*>(value)};
}

PyTypeObject* make_type(const char* name, int size, std::vector<PyType_Slot> slots) {
  slots.push_back({0, nullptr});
  PyType_Spec spec{name, size, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                   slots.data()};
  return reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
}

bool make_types() {
  static PyMethodDef storages_methods[] = {{"recorder", storages_recorder, METH_NOARGS, nullptr},
                                           {nullptr, nullptr, 0, nullptr}};
  static PyMethodDef recorder_methods[] = {
      {"hooks", recorder_hooks, METH_NOARGS, nullptr},
      {"__enter__", recorder_enter, METH_NOARGS, nullptr},
      {"__exit__", recorder_exit, METH_VARARGS, nullptr},
      {"measure", recorder_measure, METH_O, nullptr},
      {"hand_over", plain(recorder_hand_over), METH_FASTCALL, nullptr},
      {nullptr, nullptr, 0, nullptr}};
  static PyMethodDef saved_methods[] = {{"prefetch", saved_prefetch, METH_NOARGS, nullptr},
                                        {"get", saved_get, METH_NOARGS, nullptr},
                                        {"release", saved_release, METH_NOARGS, nullptr},
                                        {nullptr, nullptr, 0, nullptr}};
  static PyMemberDef saved_members[] = {
      {"size_bytes", T_LONGLONG, offsetof(SavedNumbers, size_bytes), READONLY, nullptr},
      {"swapped_bytes", T_LONGLONG, offsetof(SavedNumbers, swapped_bytes), READONLY, nullptr},
      {"occupied_bytes", T_LONGLONG, offsetof(SavedNumbers, occupied_bytes), READONLY, nullptr},
      {nullptr, 0, 0, 0, nullptr}};
  static PyGetSetDef saved_getters[] = {{"saved", saved_saved, nullptr, nullptr, nullptr},
                                        {nullptr, nullptr, nullptr, nullptr, nullptr}};
  storages_type = make_type(
      "ebbtide._saving.Storages", sizeof(Holder<Storages>),
      {slot(Py_tp_dealloc, Holder<Storages>::destroy), slot(Py_tp_methods, storages_methods)});
  recorder_type = make_type(
      "ebbtide._saving.Recorder", sizeof(Holder<Recording>),
      {slot(Py_tp_dealloc, Holder<Recording>::destroy), slot(Py_tp_methods, recorder_methods)});
  saved_type =
      make_type("ebbtide._saving.Saved", sizeof(SavedObject),
                {slot(Py_tp_dealloc, saved_destroy), slot(Py_tp_methods, saved_methods),
                 slot(Py_tp_members, saved_members), slot(Py_tp_getset, saved_getters),
                 slot(Py_nb_bool, saved_bool)});
  address_name = PyUnicode_InternFromString("address");
  count_name = PyUnicode_InternFromString("count");
  return storages_type != nullptr && recorder_type != nullptr && saved_type != nullptr &&
         address_name != nullptr && count_name != nullptr;
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
  return make_types() ? PyModule_Create(&definition) : nullptr;
}
