// From which lines of a program torch allocates, for traces with stacks (EBBTIDE_TRACE_STACKS).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "allocator/base/units.h"
#include "hooks/registry.h"

namespace ebbtide {

// Thread-safe, and the same for every adaptor.
class TorchStacks {
 public:
  // Null where no trace with stacks is written: then it costs a load and a branch.
  static std::unique_ptr<TorchStacks> make(Registry& registry);

  // What the calling thread allocates next comes from its present stack: its number, 0 if that is not known. As torch's
  // own history does, it may take the GIL: call it without any lock. What is in the way of it is not the allocation's concern.
  std::uint32_t enter() noexcept;

  // For the report of an error: a block of `size` bytes was made there. What is noted for an address holds until the next.
  void note(const void* block, Bytes size, std::uint32_t stack) noexcept;
  // The frames where the block was made, the innermost first; none if that is not known.
  std::vector<std::string> frames_of(const void* block, Bytes size) const;

 private:
  static constexpr std::size_t kMostNoted = std::size_t{1} << 18;  // addresses: 10 MiB; then it begins anew
  struct Made {
    Bytes size;
    std::uint32_t stack;
  };

  TorchStacks(Registry& registry, bool python, bool cpp) : registry_(registry), python_(python), cpp_(cpp) {}
  std::uint32_t find_or_add(StackTable& table) const;

  Registry& registry_;
  const bool python_;
  const bool cpp_;
  mutable std::mutex lock_;                         // guards made_; innermost
  std::unordered_map<const void*, Made> made_;
};

}  // namespace ebbtide
