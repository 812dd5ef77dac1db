// The part of Simulator that moves bytes.
//
// Only what was computed is moved, and only up to a limit: the rest is as large as the real
// program's memory, and its values mean nothing. A target whose source was not computed is marked
// so.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "dryrun/core/operator_context.h"
#include "dryrun/core/simulator.h"

namespace ebbtide::dryrun {

namespace {

constexpr std::size_t kZeroProbe = 4096;
// Larger copies to the host carry zeros where nothing was computed.
constexpr std::size_t kTypicalLimit = std::size_t{1} << 20;

bool is_zero(const char* bytes, std::size_t size) {
  static const char kZeros[kZeroProbe] = {};
  for (std::size_t at = 0; at < size; at += kZeroProbe) {
    if (std::memcmp(bytes + at, kZeros, std::min(kZeroProbe, size - at)) != 0) return false;
  }
  return true;
}

}  // namespace

void Simulator::mark(const void* pointer, std::size_t size, Content content) {
  const std::lock_guard lock(mutex_);
  contents_.mark(to_address(pointer), size, content);
}

Content Simulator::content(const void* pointer, std::size_t size) {
  const std::lock_guard lock(mutex_);
  return contents_.least(to_address(pointer), size);
}

std::vector<ByteRange> Simulator::materialise(void* pointer, std::size_t size) {
  const std::lock_guard lock(mutex_);
  std::vector<ByteRange> holes;
  contents_.for_each(to_address(pointer), size,
                     [&](std::uintptr_t begin, std::size_t length, Content content) {
                       if (content != Content::kNotComputed) return;
                       holes.push_back({static_cast<char*>(to_pointer(begin)), length});
                     });
  for (const ByteRange& hole : holes) {
    std::memset(hole.begin, 0, hole.size);
    contents_.mark(to_address(hole.begin), hole.size, Content::kDerived);
  }
  return holes;
}

bool Simulator::put(void* target, const void* source, std::size_t size) {
  const std::lock_guard lock(mutex_);
  if (memory_of(to_address(target)) == nullptr) return false;
  std::memcpy(target, source, size);
  contents_.mark(to_address(target), size, Content::kDerived);
  return true;
}

void Simulator::fill(void* target, int value, std::size_t size) {
  const std::lock_guard lock(mutex_);
  const bool is_device = memory_of(to_address(target)) != nullptr;
  const bool moves = size <= static_cast<std::size_t>(settings_.compute_limit.value);
  if (is_device && value == 0) {
    // Zeros cost nothing at any size: the host's untouched pages are zeros.
    clear_host_pages(to_address(target), size);
  } else if (moves || !is_device) {
    std::memset(target, value, size);
  }
  if (!is_device) return;
  contents_.mark(to_address(target), size,
                 moves || value == 0 ? Content::kComputed : Content::kNotComputed);
}

void Simulator::copy(void* target, const void* source, std::size_t size) {
  if (size == 0) return;
  ++counters_.copies;
  const OperatorContext& context = operator_context();
  const std::uintptr_t to = to_address(target);
  const std::uintptr_t from = to_address(source);
  bool read_uncomputed = false;
  std::vector<ByteRange> typical;
  {
    const std::lock_guard lock(mutex_);
    const std::int64_t limit =
        context.copy_limit >= 0 ? context.copy_limit : settings_.compute_limit.value;
    const bool moves = size <= static_cast<std::size_t>(limit);
    const bool to_device = memory_of(to) != nullptr;
    const bool from_device = memory_of(from) != nullptr;
    if (!to_device && !from_device) {
      std::memmove(target, source, size);
    } else if (!from_device) {
      copy_to_device(to, from, size, moves);
    } else if (to_device) {
      copy_on_device(to, from, size, moves);
    } else if (context.reads_scratch) {
      read_scratch(to, size);
    } else {
      read_uncomputed = copy_to_host(to, from, size, moves, typical) && !context.is_quiet;
      if (context.is_quiet && contents_.least(from, size) == Content::kNotComputed) {
        read_scratch(to, size);
      }
    }
  }
  // Our lock is free: this is the companion's code.
  for (const ByteRange& range : typical) {
    const auto offset = static_cast<std::size_t>(range.begin - static_cast<char*>(target));
    context.put_typical(context.subject, range.begin, range.size, offset);
  }
  if (read_uncomputed) note_uncomputed_read(size);
}

void Simulator::copy_to_device(std::uintptr_t target, std::uintptr_t source, std::size_t size,
                               bool moves) {
  if (is_registered(source)) return copy_from_stash(target, source, size, moves);
  // Pinned memory that still holds zeros is as a read of uncomputed memory left it: an offloaded
  // activation on its way back. Treating real zeros so is harmless, since both read as zero.
  const char* bytes = static_cast<const char*>(to_pointer(source));
  const bool is_offloaded = moves && size > kZeroProbe && is_pinned(source) && is_zero(bytes, size);
  if (!moves || is_offloaded) {
    contents_.mark(target, size, Content::kNotComputed);
    return;
  }
  std::memcpy(to_pointer(target), bytes, size);
  contents_.mark(target, size, Content::kComputed);
}

void Simulator::copy_on_device(std::uintptr_t target, std::uintptr_t source, std::size_t size,
                               bool moves) {
  struct Stretch {
    std::size_t offset, size;
    Content content;
  };
  std::vector<Stretch> stretches;
  contents_.for_each(source, size, [&](std::uintptr_t begin, std::size_t length, Content content) {
    if (moves && content != Content::kNotComputed) {
      stretches.push_back({begin - source, length, content});
    }
  });
  for (const Stretch& stretch : stretches) {
    std::memmove(to_pointer(target + stretch.offset), to_pointer(source + stretch.offset),
                 stretch.size);
  }
  contents_.mark(target, size, Content::kNotComputed);
  for (const Stretch& stretch : stretches) {
    contents_.mark(target + stretch.offset, stretch.size, stretch.content);
  }
}

bool Simulator::copy_to_host(std::uintptr_t target, std::uintptr_t source, std::size_t size,
                             bool moves, std::vector<ByteRange>& typical) {
  if (is_registered(target)) {
    copy_to_stash(target, source, size);
    return false;
  }
  bool complete = true;
  const bool pinned = is_pinned(target);
  // What is larger is on its way out and back (offloading, a checkpoint), or nobody looks at it.
  const std::size_t limit = pinned ? kZeroProbe : kTypicalLimit;
  const bool is_looked_at =
      size <= limit && operator_context().put_typical != nullptr && !operator_context().is_quiet;
  contents_.for_each(source, size, [&](std::uintptr_t begin, std::size_t length, Content content) {
    void* to = to_pointer(target + (begin - source));
    if (content != Content::kComputed) complete = false;
    if (content != Content::kNotComputed) {
      std::memcpy(to, to_pointer(begin), length);
    } else if (is_looked_at) {
      typical.push_back({static_cast<char*>(to), length});
    } else if (pinned || !moves) {
      // Offloading must not cost the host what it would cost the real program: untouched pages are
      // zeros too.
      clear_host_pages(to_address(to), length);
    } else {
      std::memset(to, 0, length);
    }
  });
  return !complete;
}

// Memory that the program registered itself is where bytes wait on their way (offloading). What was
// not computed is only noted there: it costs the host nothing, and comes back as it left.
void Simulator::copy_to_stash(std::uintptr_t target, std::uintptr_t source, std::size_t size) {
  contents_.for_each(source, size, [&](std::uintptr_t begin, std::size_t length, Content content) {
    const std::uintptr_t to = target + (begin - source);
    const bool is_computed = content != Content::kNotComputed;
    if (is_computed) std::memcpy(to_pointer(to), to_pointer(begin), length);
    stashed_.mark(to, length, is_computed ? Content::kNotComputed : kStashed);
  });
}

void Simulator::copy_from_stash(std::uintptr_t target, std::uintptr_t source, std::size_t size, bool moves) {
  stashed_.for_each(source, size, [&](std::uintptr_t begin, std::size_t length, Content content) {
    const std::uintptr_t to = target + (begin - source);
    const bool is_computed = moves && content != kStashed;
    if (is_computed) std::memcpy(to_pointer(to), to_pointer(begin), length);
    contents_.mark(to, length, is_computed ? Content::kComputed : Content::kNotComputed);
  });
}

void Simulator::read_scratch(std::uintptr_t target, std::size_t size) {
  std::memset(to_pointer(target), 0, size);
  const std::int64_t count = operator_context().scratch_count;
  if (count < 0 || (size != sizeof(std::int32_t) && size != sizeof(std::int64_t))) return;
  std::memcpy(to_pointer(target), &count, size);  // little-endian: the low bytes come first
}

void Simulator::note_uncomputed_read(std::size_t size) {
  const std::int64_t earlier = counters_.uncomputed_reads++;
  if (earlier != 0) return;
  const OperatorContext& context = operator_context();
  char subject[160] = "";
  if (context.describe != nullptr && context.subject != nullptr) {
    context.describe(context.subject, subject, sizeof subject);
  } else {
    std::snprintf(subject, sizeof subject, "%zu bytes", size);
  }
  const std::lock_guard lock(mutex_);
  first_uncomputed_read_ =
      std::string(context.name == nullptr ? "a copy to the host" : context.name) + " (" + subject +
      ")";
}

}  // namespace ebbtide::dryrun
