#include "allocator/plan/pickle_machine.h"

#include <array>
#include <cstdio>
#include <utility>

namespace ebbtide {
namespace {

// clang-format off
// The instructions of pickle protocols 2 to 5 that make plain data (Lib/pickletools.py names them).
enum Code : std::uint8_t {
  kMark = '(', kStop = '.', kPop = '0', kPopMark = '1', kDup = '2',
  kBinBytes = 'B', kShortBinBytes = 'C', kBinFloat = 'G', kBinInt = 'J', kBinInt1 = 'K',
  kBinInt2 = 'M', kNone = 'N', kBinString = 'T', kShortBinString = 'U', kBinUnicode = 'X',
  kEmptyList = ']', kAppend = 'a', kDict = 'd', kAppends = 'e', kBinGet = 'h', kLongBinGet = 'j',
  kList = 'l', kBinPut = 'q', kLongBinPut = 'r', kSetItem = 's', kTuple = 't', kSetItems = 'u',
  kEmptyDict = '}', kEmptyTuple = ')',
  kProtocol = 0x80, kTuple1 = 0x85, kTuple2 = 0x86, kTuple3 = 0x87, kNewTrue = 0x88,
  kNewFalse = 0x89, kLong1 = 0x8A, kLong4 = 0x8B, kShortBinUnicode = 0x8C, kBinUnicode8 = 0x8D,
  kBinBytes8 = 0x8E, kMemoize = 0x94, kFrame = 0x95,
};
// clang-format on

// Those that would import, build or fetch an object.
bool runs_code(std::uint8_t code) {
  constexpr std::string_view kCodes = "cRbiPQo\x81\x82\x83\x84\x92\x93\x97";
  return kCodes.find(static_cast<char>(code)) != std::string_view::npos;
}

}  // namespace

bool PickleMachine::run() {
  for (;;) {
    start_ = next_;
    std::string_view code;
    if (!take(1, code)) return false;
    if (start_ == 0 && static_cast<std::uint8_t>(code[0]) != kProtocol) {
      return fail("this is no pickle of protocol 2 or later");
    }
    if (code[0] != kStop) {
      if (!step(static_cast<std::uint8_t>(code[0]))) return false;
      continue;
    }
    if (stack_.size() != 1 || !marks_.empty())
      return fail("the pickle ends in the middle of a value");
    pickle_.root_ = stack_.back();
    return true;
  }
}

// clang-format off
bool PickleMachine::step(std::uint8_t code) {
  switch (code) {
    case kMark: case kPop: case kPopMark: case kDup: case kBinGet: case kLongBinGet: case kBinPut:
    case kLongBinPut: case kMemoize: case kProtocol: case kFrame:
      return step_stack(code);
    case kEmptyList: case kEmptyTuple: case kEmptyDict: case kAppend: case kAppends: case kSetItem:
    case kSetItems: case kList: case kTuple: case kTuple1: case kTuple2: case kTuple3: case kDict:
      return step_container(code);
    default:
      return step_scalar(code);
  }
}
// clang-format on

bool PickleMachine::step_scalar(std::uint8_t code) {
  std::string_view bytes;
  switch (code) {
    case kNone:
      push(Kind::kOther, 0);
      return true;
    case kNewTrue:
      push(Kind::kInteger, 1);
      return true;
    case kNewFalse:
      push(Kind::kInteger, 0);
      return true;
    case kBinInt:
      return push_integer(4, true);
    case kBinInt1:
      return push_integer(1, false);
    case kBinInt2:
      return push_integer(2, false);
    case kLong1:
      return push_long(1);
    case kLong4:
      return push_long(4);
    case kBinFloat:
      if (!take(8, bytes)) return false;
      push(Kind::kOther, 0);
      return true;
    case kShortBinUnicode:
    case kShortBinString:
      return push_blob(1, Kind::kText);
    case kBinUnicode:
    case kBinString:
      return push_blob(4, Kind::kText);
    case kBinUnicode8:
      return push_blob(8, Kind::kText);
    case kShortBinBytes:
      return push_blob(1, Kind::kOther);
    case kBinBytes:
      return push_blob(4, Kind::kOther);
    case kBinBytes8:
      return push_blob(8, Kind::kOther);
    default:
      return refuse(code);
  }
}

bool PickleMachine::step_container(std::uint8_t code) {
  std::vector<std::uint32_t> items;
  switch (code) {
    case kEmptyList:
    case kEmptyTuple:
      push_container(Kind::kList);
      return true;
    case kEmptyDict:
      push_container(Kind::kDictionary);
      return true;
    case kAppend:
      return pop(1, items) && extend_top(Kind::kList, items);
    case kAppends:
      return pop_to_mark(items) && extend_top(Kind::kList, items);
    case kSetItem:
      return pop(2, items) && extend_top(Kind::kDictionary, items);
    case kSetItems:
      return pop_to_mark(items) && extend_top(Kind::kDictionary, items);
    case kDict:
      return pop_dictionary();
    case kList:
    case kTuple:
      if (!pop_to_mark(items)) return false;
      break;
    default:
      if (!pop(std::size_t{code} - kTuple1 + 1, items)) return false;
  }
  push_container(Kind::kList, std::move(items));
  return true;
}

bool PickleMachine::step_stack(std::uint8_t code) {
  std::uint64_t number = 0;
  std::vector<std::uint32_t> items;
  switch (code) {
    case kMark:
      marks_.push_back(stack_.size());
      return true;
    case kPop:
      if (!marks_.empty() && marks_.back() == stack_.size()) {
        marks_.pop_back();
        return true;
      }
      return pop(1, items);
    case kPopMark:
      return pop_to_mark(items);
    case kDup:
      if (!pop(1, items)) return false;
      stack_.insert(stack_.end(), 2, items[0]);
      return true;
    case kProtocol:
      if (!take_unsigned(1, number)) return false;
      return (number >= 2 && number <= 5) ||
             fail("protocol " + std::to_string(number) + " is not supported, only 2 to 5");
    case kFrame:
      return take_unsigned(8, number);
    case kMemoize:
      return remember(memorized_);
    case kBinPut:
      return take_unsigned(1, number) && remember(number);
    case kLongBinPut:
      return take_unsigned(4, number) && remember(number);
    case kBinGet:
      return take_unsigned(1, number) && recall(number);
    default:
      return take_unsigned(4, number) && recall(number);
  }
}

bool PickleMachine::fail(std::string reason) {
  fault_ = std::move(reason);
  return false;
}

bool PickleMachine::refuse(std::uint8_t code) {
  if (runs_code(code))
    return fail("holds more than plain data: it would run code, and is not read");
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "instruction 0x%02X is unknown or not supported", code);
  return fail(text.data());
}

bool PickleMachine::take(std::size_t count, std::string_view& bytes) {
  if (count > pickle_.bytes_.size() - next_) return fail("the file ends early");
  bytes = pickle_.bytes_.substr(next_, count);
  next_ += count;
  return true;
}

bool PickleMachine::take_unsigned(std::size_t width, std::uint64_t& value) {
  std::string_view bytes;
  if (!take(width, bytes)) return false;
  value = 0;
  for (std::size_t i = width; i-- > 0;) {
    value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
  }
  return true;
}

void PickleMachine::push(Kind kind, std::int64_t value, std::size_t length) {
  stack_.push_back(static_cast<std::uint32_t>(pickle_.nodes_.size()));
  pickle_.nodes_.push_back(
      {value, static_cast<std::uint32_t>(length), static_cast<std::uint32_t>(start_)});
  pickle_.kinds_.push_back(kind);
}

bool PickleMachine::push_integer(std::size_t bytes, bool is_signed) {
  std::uint64_t value = 0;
  if (!take_unsigned(bytes, value)) return false;
  const unsigned unused = is_signed && bytes > 0 ? 64 - 8 * static_cast<unsigned>(bytes) : 0;
  push(Kind::kInteger, static_cast<std::int64_t>(value << unused) >> unused);
  return true;
}

bool PickleMachine::push_long(std::size_t width) {
  std::uint64_t length = 0;
  if (!take_unsigned(width, length)) return false;
  if (length == 0) {
    push(Kind::kInteger, 0);
    return true;
  }
  if (length <= 8) return push_integer(length, true);
  std::string_view bytes;
  if (!take(length, bytes)) return false;
  push(Kind::kOther, 0);
  return true;
}

bool PickleMachine::push_blob(std::size_t width, Kind kind) {
  std::uint64_t length = 0;
  std::string_view bytes;
  if (!take_unsigned(width, length) || !take(length, bytes)) return false;
  push(kind, static_cast<std::int64_t>(next_ - length), length);
  return true;
}

void PickleMachine::push_container(Kind kind, std::vector<std::uint32_t> items) {
  push(kind, Pickle::kNoItems);
  if (items.empty()) return;
  items.shrink_to_fit();
  pickle_.nodes_.back().value = static_cast<std::int64_t>(pickle_.items_.size());
  pickle_.items_.push_back(std::move(items));
}

bool PickleMachine::pop(std::size_t count, std::vector<std::uint32_t>& items) {
  const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() < bottom + count) return fail("a value is missing here");
  items.assign(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
  stack_.resize(stack_.size() - count);
  return true;
}

bool PickleMachine::pop_to_mark(std::vector<std::uint32_t>& items) {
  if (marks_.empty()) return fail("a mark is missing here");
  if (!pop(stack_.size() - marks_.back(), items)) return false;
  marks_.pop_back();
  return true;
}

bool PickleMachine::pop_dictionary() {
  std::vector<std::uint32_t> items;
  if (!pop_to_mark(items)) return false;
  push_container(Kind::kDictionary);
  return extend_top(Kind::kDictionary, items);
}

bool PickleMachine::extend_top(Kind kind, const std::vector<std::uint32_t>& items) {
  const std::size_t bottom = marks_.empty() ? 0 : marks_.back();
  if (stack_.size() <= bottom) return fail("a value is missing here");
  if (pickle_.kinds_[stack_.back()] != kind)
    return fail("neither a list nor a dictionary is to be extended here");
  if (kind == Kind::kDictionary && items.size() % 2 != 0) return fail("a key has no value");
  if (items.empty()) return true;
  std::int64_t& index = pickle_.nodes_[stack_.back()].value;
  if (index == Pickle::kNoItems) {
    index = static_cast<std::int64_t>(pickle_.items_.size());
    pickle_.items_.emplace_back();
  }
  auto& all = pickle_.items_[static_cast<std::size_t>(index)];
  all.insert(all.end(), items.begin(), items.end());
  return true;
}

bool PickleMachine::remember(std::uint64_t index) {
  if (stack_.empty()) return fail("a value is missing here");
  // Picklers number from 0, and every number takes a byte at least.
  if (index >= next_) return fail("memo number " + std::to_string(index) + " is out of order");
  if (index >= memo_.size()) memo_.resize(index + 1, kNoNode);
  if (memo_[index] == kNoNode) ++memorized_;
  memo_[index] = stack_.back();
  return true;
}

bool PickleMachine::recall(std::uint64_t index) {
  if (index >= memo_.size() || memo_[index] == kNoNode) {
    return fail("memo number " + std::to_string(index) + " was never given");
  }
  stack_.push_back(memo_[index]);
  return true;
}

}  // namespace ebbtide
