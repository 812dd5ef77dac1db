// Stores and landings as classes of torch's, for python_shim/ebbtide/_offload/_native_saving.py.
//
// Tensors cross from Python and back a whole batch at a time, and what is done for each of them is
// done here. torch's own class registry carries them: nothing of Python is needed to build this.
#include <tuple>

#include "hooks/torch_offload/python_classes.h"

namespace ebbtide::offload {
namespace {

template <class T>
using Pointer = c10::intrusive_ptr<T>;

// The batch, and for each tensor its bytes and how many of them leave the device.
using Saves = std::tuple<Pointer<SavedBatch>, std::vector<std::int64_t>, std::vector<std::int64_t>>;

Saves save_all(Store& store, std::vector<at::Tensor> tensors) {
  for (auto& tensor : tensors) tensor = alias_of(tensor);  // Python keeps its own
  auto saved = store.save_all(tensors);
  std::vector<std::int64_t> sizes, swapped;
  for (const auto& one : saved) {
    sizes.push_back(one->size_bytes());
    swapped.push_back(one->swapped_bytes());
  }
  return {c10::make_intrusive<SavedBatch>(std::move(saved)), std::move(sizes), std::move(swapped)};
}

// What python_module.cpp takes for it.
template <class T>
std::int64_t address_of(T* object) {
  return reinterpret_cast<std::int64_t>(static_cast<void*>(object));
}

// What both stores do. A lambda for each: torch takes a vector of tensors by value alone.
template <class PythonStore>
torch::class_<PythonStore> store_class(torch::Library& library, const char* name) {
  using Self = Pointer<PythonStore>;
  return library.class_<PythonStore>(name)
      .def("save_all",
           [](const Self& self, std::vector<at::Tensor> tensors) {
             return save_all(self->store, std::move(tensors));
           })
      .def("held_bytes", [](const Self& self) { return self->store.held_bytes(); })
      .def("address",
           [](const Self& self) { return address_of(static_cast<Store*>(&self->store)); });
}

TORCH_LIBRARY(ebbtide, library) {
  library.class_<SavedBatch>("SavedBatch")
      .def("address", [](const Pointer<SavedBatch>& self) { return address_of(self.get()); })
      .def("get", &SavedBatch::get)
      .def("get_all", &SavedBatch::get_all);
  library.class_<PythonLanding>("Landing")
      .def(torch::init<at::Tensor>())
      .def("put", [](const Pointer<PythonLanding>& self,
                     const at::Tensor& tensor) { self->landing->put(tensor); })
      .def("drop", [](const Pointer<PythonLanding>& self) { self->landing->drop(); })
      .def("address", [](const Pointer<PythonLanding>& self) { return address_of(self.get()); });
  store_class<PythonKeepStore>(library, "KeepStore").def(torch::init<>());
  store_class<PythonSwapStore>(library, "SwapStore")
      .def(torch::init<std::int64_t, std::int64_t, std::int64_t>())
      .def("layer_ended", &PythonSwapStore::layer_ended)
      .def("let_go", &PythonSwapStore::let_go)
      .def("number", [](const Pointer<PythonSwapStore>& self) {
        return static_cast<std::int64_t>(self->store.number());
      });
}

}  // namespace
}  // namespace ebbtide::offload
