#include "hooks/torch_stacks.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "hooks/cpp_frames.h"
#include "hooks/python_frames.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMostPython = 96;
constexpr std::size_t kMostCpp = 96;
constexpr std::size_t kMostText = OwnerNames::kMostText;
constexpr const char* kOuter = "(outer frames are left out)";

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
  if (table == nullptr) return 0;
  std::uint32_t stack = 0;
  if (!is_inside) {
    is_inside = true;
    try {
      stack = find_or_add(*table);
    } catch (const std::exception&) {
      // Without memory for it, or through code that cannot be unwound, the allocation has no stack in the trace, and no more.
    }
    is_inside = false;
  }
  table->enter(stack);
  return stack;
}

std::uint32_t TorchStacks::find_or_add(StackTable& table) const {
  std::vector<std::uint64_t> key;
  const std::vector<void*> addresses = cpp_ ? return_addresses(kMostCpp) : std::vector<void*>{};
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
  const bool is_cut = python_words > 0 ? python_words == 2 * kMostPython : addresses.size() == kMostCpp;
  if (is_cut) frames.emplace_back(kOuter);
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
