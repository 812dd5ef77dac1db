#include "hooks/torch_offload/python_recorder.h"

#include <cmath>
#include <memory>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "hooks/torch_offload/python_classes.h"
#include "hooks/torch_offload/python_saved.h"
#include "hooks/torch_offload/saved_hooks.h"

namespace ebbtide::offload {
namespace {

using Storages = std::shared_ptr<const std::unordered_set<StorageId>>;

// What one recorder saw, and its time.
struct Recording {
  explicit Recording(Storages storages) : external(std::move(storages)), recorder(external.get()) {}

  Storages external;
  Recorder recorder;
  std::optional<HookScope> scope;
};

// Set once, by make_recorder_types().
PyTypeObject *storages_type, *recorder_type;
PyObject *address_name, *count_name;

bool read_storages(PyObject* iterable, std::unordered_set<StorageId>* found) {
  return for_each(iterable, [&](PyObject* item) { found->insert(PyLong_AsVoidPtr(item)); });
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
    return counted(arguments[0], make_saved(*std::move(handed)));
  });
}

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

PyCFunction plain(FastFunction function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace

bool make_recorder_types() {
  static PyMethodDef storages_methods[] = {{"recorder", storages_recorder, METH_NOARGS, nullptr},
                                           {nullptr, nullptr, 0, nullptr}};
  static PyMethodDef recorder_methods[] = {
      {"hooks", recorder_hooks, METH_NOARGS, nullptr},
      {"__enter__", recorder_enter, METH_NOARGS, nullptr},
      {"__exit__", recorder_exit, METH_VARARGS, nullptr},
      {"measure", recorder_measure, METH_O, nullptr},
      {"hand_over", plain(recorder_hand_over), METH_FASTCALL, nullptr},
      {nullptr, nullptr, 0, nullptr}};
  storages_type = make_type(
      "ebbtide._saving.Storages", sizeof(Holder<Storages>),
      {slot(Py_tp_dealloc, Holder<Storages>::destroy), slot(Py_tp_methods, storages_methods)});
  recorder_type = make_type(
      "ebbtide._saving.Recorder", sizeof(Holder<Recording>),
      {slot(Py_tp_dealloc, Holder<Recording>::destroy), slot(Py_tp_methods, recorder_methods)});
  address_name = PyUnicode_InternFromString("address");
  count_name = PyUnicode_InternFromString("count");
  return storages_type != nullptr && recorder_type != nullptr && address_name != nullptr && count_name != nullptr;
}

PyObject* make_storages(PyObject* addresses) {
  return guarded([&]() -> PyObject* {
    std::unordered_set<StorageId> found;
    if (!read_storages(addresses, &found)) return nullptr;
    auto shared = std::make_shared<const std::unordered_set<StorageId>>(std::move(found));
    return Holder<Storages>::make(storages_type, std::make_unique<Storages>(std::move(shared)));
  });
}

}  // namespace ebbtide::offload
