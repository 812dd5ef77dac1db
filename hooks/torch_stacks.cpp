#include "hooks/torch_stacks.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "hooks/python_frames.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMostPython = 96;
constexpr std::size_t kMostCpp = 96;
constexpr std::size_t kMostInner = 10;  // frames from the unwinder to torch
constexpr std::size_t kMostText = OwnerNames::kMostText;
constexpr const char* kOuter = "(outer frames are left out)";
constexpr const char* kInterpreter = "_PyEval_EvalFrame";
constexpr const char* kOurs = "libebbtide_torch_";

using Unwind = std::vector<void*> (*)();

std::vector<void*> unwind_as_libgcc_does() {
  std::array<void*, kMostCpp> found;
  const int count = ::backtrace(found.data(), static_cast<int>(kMostCpp));
  return std::vector<void*>(found.begin(), found.begin() + count);
}

// torch::unwind::unwind() keeps what it has decoded of each function: several times faster. Looked up in the libtorch_cpu
// that is loaded already, as find_backward_probe() does.
Unwind find_unwinder() {
  void* torch = ::dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  void* symbol = torch == nullptr ? nullptr : ::dlsym(torch, "_ZN5torch6unwind6unwindEv");
  return symbol == nullptr ? &unwind_as_libgcc_does : reinterpret_cast<Unwind>(symbol);
}

// The return addresses of the calls that are under way, the innermost first.
std::vector<void*> return_addresses() {
  static const Unwind unwind = find_unwinder();
  std::vector<void*> found = unwind();
  if (found.size() > kMostCpp) found.resize(kMostCpp);
  return found;
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
    if (name[i] == '(' && --depth == 0) return name.substr(0, i);
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

// The calls below the adaptor, up to where the interpreter takes over: from there on Python's frames say more.
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

// A long one loses its front if that is a path: its end says most.
std::string cut(std::string text) {
  if (text.size() > kMostText && text.starts_with('/')) text.erase(0, text.size() - kMostText);
  return text.size() > kMostText ? text.substr(0, kMostText) : text;
}

}  // namespace

std::unique_ptr<TorchStacks> TorchStacks::make(Registry& registry) {
  if (registry.stacks() == nullptr) return nullptr;
  const TraceStacks wanted = registry.settings().value().trace_stacks;
  return std::unique_ptr<TorchStacks>(
      new TorchStacks(registry, wanted != TraceStacks::kCpp, wanted != TraceStacks::kPython));
}

std::uint32_t TorchStacks::enter() noexcept {
  // What runs while Python's frames are read may allocate, too.
  thread_local bool is_inside = false;
  StackTable* table = registry_.stacks();
  if (table == nullptr || is_inside) return 0;
  is_inside = true;
  std::uint32_t stack = 0;
  try {
    stack = find_or_add(*table);
    table->enter(stack);
  } catch (const std::exception&) {
    // Without memory for it the allocation has no stack in the trace, and no more.
  }
  is_inside = false;
  return stack;
}

std::uint32_t TorchStacks::find_or_add(StackTable& table) const {
  std::vector<std::uint64_t> key;
  const std::vector<void*> addresses = cpp_ ? return_addresses() : std::vector<void*>{};
  for (void* address : addresses) key.push_back(reinterpret_cast<std::uintptr_t>(address));
  std::optional<PythonFrames> python;
  std::size_t python_words = 0;
  if (python_) {
    key.push_back(0);  // ends the addresses
    python_words = key.size();
    python.emplace();
    python->append_key(key, kMostPython);
    python_words = key.size() - python_words;
  }
  if (key.size() <= 1) return 0;
  const std::uint32_t known = table.find(key);
  if (known != 0) return known;

  std::vector<std::string> frames = texts_of(addresses, python_words > 0);
  if (python) {
    std::ranges::move(python->texts(), std::back_inserter(frames));
    python->keep();
  }
  if (addresses.size() == kMostCpp || python_words == 2 * kMostPython) frames.emplace_back(kOuter);
  std::ranges::reverse(frames);
  std::ranges::transform(frames, frames.begin(), cut);
  return table.add(key, frames);
}

void TorchStacks::note(const void* block, Bytes size, std::uint32_t stack) noexcept {
  try {
    const std::lock_guard guard(lock_);
    if (made_.size() >= kMostNoted) made_.clear();
    made_[block] = {size, stack};
  } catch (const std::exception&) {
    // One block less is explained.
  }
}

std::vector<std::string> TorchStacks::frames_of(const void* block, Bytes size) const {
  StackTable* table = registry_.stacks();
  const std::lock_guard guard(lock_);
  const auto found = made_.find(block);
  if (table == nullptr || found == made_.end() || found->second.size != size) return {};
  return table->frames(found->second.stack);
}

}  // namespace ebbtide
