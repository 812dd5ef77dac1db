// What the torch companion tells the stand-ins about the operator that is running on a thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dryrun/core/export.h"

namespace ebbtide::dryrun {

class StreamClock;

struct OperatorContext {
  // Name of the innermost operator, with static lifetime; nullptr outside of any.
  const char* name = nullptr;
  // What it works on, and a function that writes that as text. Used for reports only.
  const void* subject = nullptr;
  void (*describe)(const void* subject, char* text, std::size_t capacity) = nullptr;
  // Writes typical values (core/typical.h) for `size` bytes of the subject, `offset` bytes behind its
  // first; nullptr: zeros stand for what was not computed.
  void (*put_typical)(const void* subject, void* bytes, std::size_t size,
                      std::size_t offset) = nullptr;
  // True in an operator that is no copy and no read of a value: what it reads back is its own
  // scratch memory, which no kernel has written. It sees zeros, or the count below.
  bool reads_scratch = false;
  // True while the results are known already: reads do not matter and are not reported.
  bool is_quiet = false;
  // Answer to such a read of four or eight bytes; negative if there is none.
  std::int64_t scratch_count = -1;
  // Kernels that it launched itself, and the stream of the last; what they take is known when it ends.
  int launches = 0;
  StreamClock* stream = nullptr;
  // True while autograd runs backward, and behind it until the next forward pass: what is computed then is a
  // gradient, a recomputation, an optimizer's or an evaluation's, and no part of a training step's forward.
  bool is_in_backward = false;
  // Copies of more bytes than this are not carried out; negative: the general limit.
  std::int64_t copy_limit = -1;
};

// The calling thread's context.
EBBTIDE_DRYRUN_API OperatorContext& operator_context();

}  // namespace ebbtide::dryrun
