#include "profiler/stack_table.h"

#include <algorithm>
#include <utility>

namespace ebbtide {

StackTable::StackTable(EventSink& sink, OwnerNames& names) : sink_(sink), names_(names) {}

std::size_t StackTable::Hash::operator()(Key key) const noexcept {
  // FNV-1a by words, mixed once more at the end: code addresses differ in their low bits mostly.
  std::uint64_t hash = 0xCBF29CE484222325;
  for (const std::uint64_t word : key) hash = (hash ^ word) * 0x100000001B3;
  return static_cast<std::size_t>(hash ^ (hash >> 29));
}

bool StackTable::Equal::operator()(Key a, Key b) const noexcept { return std::ranges::equal(a, b); }

std::uint32_t StackTable::find(Key key) {
  const std::lock_guard guard(lock_);
  const auto found = stacks_.find(key);
  return found == stacks_.end() ? others_ : found->second;
}

bool StackTable::is_full(std::size_t words, std::size_t frames) const {
  return stacks_.size() >= kMostStacks || words_ + words > kMostWords || frames_.size() + frames >= kMostFrames;
}

std::uint32_t StackTable::add(Key key, std::span<const std::string> frames) {
  const std::lock_guard guard(lock_);
  if (const auto found = stacks_.find(key); found != stacks_.end()) return found->second;
  if (others_ != 0) return others_;
  if (is_full(key.size(), frames.size())) return others_ = child(0, "more stacks than a trace holds");
  std::uint32_t stack = 0;
  for (const std::string& frame : frames) stack = child(stack, frame);
  if (stack == 0) stack = child(0, "a stack without known frames");
  stacks_.emplace(std::vector<std::uint64_t>(key.begin(), key.end()), stack);
  words_ += key.size();
  return stack;
}

std::uint32_t StackTable::child(std::uint32_t caller, const std::string& text) {
  const auto [named, is_new] = texts_.try_emplace(text, 0);
  if (is_new) {
    named->second = names_.add(sink_, text);
    spoken_.emplace(named->second, named->first);
  }
  const auto [place, added] = children_.try_emplace(std::uint64_t{caller} << 32 | named->second, 0);
  if (!added) return place->second;
  frames_.push_back({named->second, caller});
  const auto stack = static_cast<std::uint32_t>(frames_.size());
  EventRecord event;
  event.action = Action::kFrame;
  event.thread = stack;
  event.address = named->second;
  event.bytes = caller;
  event.device = kNoDevice;
  sink_.record(event);
  return place->second = stack;
}

std::vector<std::string> StackTable::frames(std::uint32_t stack) const {
  const std::lock_guard guard(lock_);
  std::vector<std::string> texts;
  while (stack != 0 && stack <= frames_.size()) {
    const Frame& frame = frames_[stack - 1];
    texts.emplace_back(spoken_.at(frame.text));
    stack = frame.caller;
  }
  return texts;
}

void StackTable::enter(std::uint32_t stack) noexcept {
  thread_local std::uint32_t current = 0;
  if (std::exchange(current, stack) == stack) return;
  EventRecord event;
  event.action = Action::kStack;
  event.bytes = stack;
  event.device = kNoDevice;
  sink_.record(event);
}

}  // namespace ebbtide
