#include "hooks/torch_offload/python_objects.h"

#include <algorithm>
#include <cstddef>
#include <string>

namespace ebbtide::offload {
namespace {

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

}  // namespace

PyObject* failed(const char* kind, const char* what) noexcept {
  PyObject* torch = PyImport_ImportModule("torch");
  PyObject* type = torch != nullptr ? PyObject_GetAttrString(torch, kind) : nullptr;
  if (type != nullptr) PyErr_SetString(type, one_line(what).c_str());
  Py_XDECREF(type);
  Py_XDECREF(torch);
  return nullptr;
}

PyObject* failed(const char* what) noexcept {
  PyErr_SetString(PyExc_RuntimeError, one_line(what).c_str());
  return nullptr;
}

}  // namespace ebbtide::offload
