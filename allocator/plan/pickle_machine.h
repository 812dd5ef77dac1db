// The stack machine that a pickle is a program of, without the instructions that run code.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "allocator/plan/pickle.h"

namespace ebbtide {

// Reads one pickle, once. Invariants: marks_ ascends and no mark exceeds the stack's size; every
// entry of stack_ and memo_ is a node (or, in memo_, kNoNode).
class PickleMachine {
 public:
  explicit PickleMachine(Pickle& pickle) : pickle_(pickle) {}

  // Runs up to STOP. False: fault() and position() say what is wrong where.
  bool run();
  const std::string& fault() const { return fault_; }
  std::size_t position() const { return start_; }

 private:
  using Kind = Pickle::Kind;
  static constexpr std::uint32_t kNoNode = 0xFFFFFFFF;

  bool step(std::uint8_t code);
  bool step_scalar(std::uint8_t code);
  bool step_container(std::uint8_t code);
  bool step_stack(std::uint8_t code);

  bool fail(std::string reason);  // returns false
  bool refuse(std::uint8_t code);
  bool take(std::size_t count, std::string_view& bytes);
  bool take_unsigned(std::size_t width, std::uint64_t& value);  // little endian
  void push(Kind kind, std::int64_t value, std::size_t length = 0);
  bool push_integer(std::size_t bytes, bool is_signed);
  bool push_blob(std::size_t width, Kind kind);  // a length of `width` bytes, then so many bytes
  bool push_long(std::size_t width);
  void push_container(Kind kind, std::vector<std::uint32_t> items = {});
  bool pop(std::size_t count, std::vector<std::uint32_t>& items);
  bool pop_to_mark(std::vector<std::uint32_t>& items);
  bool pop_dictionary();
  bool extend_top(Kind kind, const std::vector<std::uint32_t>& items);
  bool remember(std::uint64_t index);
  bool recall(std::uint64_t index);

  Pickle& pickle_;
  std::size_t next_ = 0;   // the next byte to read
  std::size_t start_ = 0;  // of the instruction being run
  std::vector<std::uint32_t> stack_;
  std::vector<std::size_t> marks_;
  std::vector<std::uint32_t> memo_;
  std::size_t memorized_ = 0;
  std::string fault_;
};

}  // namespace ebbtide
