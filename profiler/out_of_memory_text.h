// Out of memory in words: the text of the error, and the report that is written beside it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "allocator/base/result.h"
#include "allocator/base/units.h"

namespace ebbtide {

// What was so at the moment of the failure.
struct OutOfMemoryFacts {
  int device = 0;
  Bytes asked;
  std::string asked_in;               // "the backward of round 7"; empty when not known
  Bytes allocated, reserved;          // torch's numbers, the arena's tensors counted one by one
  Bytes device_free, device_total;
  Bytes requested;                    // of `allocated`, without rounding
  Bytes arena, arena_live;
  Bytes given_back;                   // by the arena before this failure
  Bytes made_in_round;                // of what is alive: activations, mostly
  Bytes plan_height;                  // of the plan in force; 0: there is none
  bool has_expandable_segments = false;
  std::vector<std::string> asked_from;  // the stack, the innermost frame first: "file:line function"
  static constexpr std::size_t kStacksTold = 10;
  struct Owner {
    Bytes size;
    std::string who;
    const void* address = nullptr;
    std::vector<std::string> stack{};  // where it was made, of the first kStacksTold; empty when not known
  };
  std::vector<Owner> largest;         // live blocks, the largest first
  struct Segment {
    std::uint64_t address = 0;
    Bytes size, taken;
    std::vector<Bytes> free;          // pieces that no block holds
  };
  std::vector<Segment> segments;      // all that torch and the arena hold
};

// Torch's own text with the numbers that hold here, and with what it leaves out: the largest free block, the free
// bytes that fit nothing, who holds the most, what the arena gave back, and what to change.
std::string explain_out_of_memory(const std::string& text_of_torch, const OutOfMemoryFacts& facts);

// The whole of it, with tables of at most 40 rows. `error` is what the program is told.
std::string out_of_memory_report(const std::string& error, const OutOfMemoryFacts& facts);

// Replaces the file. kSystem when it cannot be written.
Status write_text(const std::string& path, const std::string& text);

}  // namespace ebbtide
