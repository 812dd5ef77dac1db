#include "hooks/cpp_frames.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <string_view>

namespace ebbtide {
namespace {

constexpr std::size_t kMostFrames = 128;
constexpr std::size_t kMostInner = 10;  // frames from the unwinder to torch
constexpr std::string_view kFrameOfPython = "_PyEval_EvalFrame";
constexpr const char* kOurs = "libebbtide_torch_";

using Unwind = std::vector<void*> (*)();

std::vector<void*> unwind_as_libgcc_does() {
  std::array<void*, kMostFrames> found;
  const int count = ::backtrace(found.data(), static_cast<int>(found.size()));
  return std::vector<void*>(found.begin(), found.begin() + count);
}

// torch::unwind::unwind() keeps what it has decoded of each function: several times faster. Looked up in the libtorch_cpu
// that is loaded already, as find_backward_probe() does.
Unwind find_unwinder() {
  void* torch = ::dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  void* symbol = torch == nullptr ? nullptr : ::dlsym(torch, "_ZN5torch6unwind6unwindEv");
  return symbol == nullptr ? &unwind_as_libgcc_does : reinterpret_cast<Unwind>(symbol);
}

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), &std::free);
  return status == 0 ? text.get() : name;
}

// They say little and are most of a name: what the last parenthesis encloses goes.
std::string without_parameters(const std::string& name) {
  std::size_t depth = 0;
  for (std::size_t i = name.rfind(')'); i < name.size() && i > 0; --i) {
    if (name[i] == ')') ++depth;
    if (name[i] == '(' && --depth == 0) return name.compare(i, 4, "(ano") == 0 ? name : name.substr(0, i);
  }
  return name;
}

// Where a call is: what it returns to may be the next function's first instruction.
std::uintptr_t call_before(void* address) { return reinterpret_cast<std::uintptr_t>(address) - 1; }

// The library or program that `address` is in, and the function if that exports it; all null if none is.
Dl_info image_of(std::uintptr_t address) {
  Dl_info info{};
  return ::dladdr(reinterpret_cast<void*>(address), &info) == 0 ? Dl_info{} : info;
}

// A library of its own, or the program itself: Debian's python. Null in a process without Python.
const void* image_of_interpreter() {
  void* function = ::dlsym(RTLD_DEFAULT, "Py_IsInitialized");
  return function == nullptr ? nullptr : image_of(reinterpret_cast<std::uintptr_t>(function)).dli_fbase;
}

// "library+0xoffset function", as addr2line and a reader want it.
std::string text_of(std::uintptr_t address, const Dl_info& info) {
  if (info.dli_fname == nullptr) return "?";
  const std::string path = info.dli_fname;
  std::array<char, 24> offset;
  std::snprintf(offset.data(), offset.size(), "+0x%zx", address - reinterpret_cast<std::uintptr_t>(info.dli_fbase));
  std::string text = path.substr(path.rfind('/') + 1);
  text += offset.data();
  if (info.dli_sname != nullptr) text.append(" ").append(without_parameters(demangled(info.dli_sname)));
  return text;
}

}  // namespace

std::vector<void*> return_addresses(std::size_t most) {
  static const Unwind unwind = find_unwinder();
  std::vector<void*> found = unwind();
  if (found.size() > most) found.resize(most);
  return found;
}

std::vector<std::string> texts_of(const std::vector<void*>& addresses, bool up_to_python) {
  const void* interpreter = up_to_python ? image_of_interpreter() : nullptr;
  std::vector<std::string> texts;
  for (void* address : addresses) {
    const std::uintptr_t call = call_before(address);
    const Dl_info image = image_of(call);
    if (interpreter == nullptr || image.dli_fbase != interpreter) {
      texts.push_back(text_of(call, image));
    } else if (image.dli_sname != nullptr && std::string_view(image.dli_sname).starts_with(kFrameOfPython)) {
      break;
    }
  }
  // The first ones are the unwinder's and ours.
  const auto end = texts.begin() + static_cast<std::ptrdiff_t>(std::min(texts.size(), kMostInner));
  const auto ours = std::find_if(std::reverse_iterator(end), texts.rend(), [](const auto& text) { return text.starts_with(kOurs); });
  texts.erase(texts.begin(), ours.base());
  return texts;
}

}  // namespace ebbtide
