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

namespace ebbtide {
namespace {

constexpr std::size_t kMostFrames = 128;
constexpr std::size_t kMostInner = 10;  // frames from the unwinder to torch
constexpr const char* kInterpreter = "_PyEval_EvalFrame";
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

// "library+0xoffset function", as addr2line and a reader want it; the function only if the library exports it.
std::string text_of(void* address) {
  Dl_info info{};
  // What it returns to may be the next function's first instruction.
  const auto inside = reinterpret_cast<std::uintptr_t>(address) - 1;
  if (::dladdr(reinterpret_cast<void*>(inside), &info) == 0 || info.dli_fname == nullptr) return "?";
  const std::string path = info.dli_fname;
  std::array<char, 24> offset;
  std::snprintf(offset.data(), offset.size(), "+0x%zx", inside - reinterpret_cast<std::uintptr_t>(info.dli_fbase));
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
  std::vector<std::string> texts;
  for (void* address : addresses) {
    std::string text = text_of(address);
    if (up_to_python && text.find(kInterpreter) != std::string::npos) break;
    texts.push_back(std::move(text));
  }
  // The first ones are the unwinder's and ours.
  const auto end = texts.begin() + static_cast<std::ptrdiff_t>(std::min(texts.size(), kMostInner));
  const auto ours = std::find_if(std::reverse_iterator(end), texts.rend(), [](const auto& text) { return text.starts_with(kOurs); });
  texts.erase(texts.begin(), ours.base());
  return texts;
}

}  // namespace ebbtide
