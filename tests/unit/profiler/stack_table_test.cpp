#include "profiler/stack_table.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/profiler/kept_events.h"

namespace ebbtide {
namespace {

using Key = std::vector<std::uint64_t>;
using Frames = std::vector<std::string>;

struct Table {
  KeptEvents kept;
  OwnerNames names;
  StackTable stacks{kept, names};
};

TEST(StackTable, AStackIsWrittenOnceAndFoundByItsKey) {
  Table t;
  EXPECT_EQ(t.stacks.find(Key{1, 2}), 0U);
  const std::uint32_t stack = t.stacks.add(Key{1, 2}, Frames{"main", "forward"});
  EXPECT_NE(stack, 0U);
  const std::size_t written = t.kept.events.size();
  EXPECT_EQ(t.stacks.find(Key{1, 2}), stack);
  EXPECT_EQ(t.stacks.add(Key{1, 2}, Frames{"main", "forward"}), stack);
  EXPECT_EQ(t.kept.events.size(), written);
  EXPECT_EQ(t.stacks.frames(stack), (Frames{"forward", "main"}));
}

TEST(StackTable, AKeyThatBeginsAnotherIsAnother) {
  Table t;
  const std::uint32_t stack = t.stacks.add(Key{1, 2}, Frames{"main", "forward"});
  EXPECT_EQ(t.stacks.find(Key{1}), 0U);
  EXPECT_EQ(t.stacks.find(Key{1, 2, 3}), 0U);
  EXPECT_EQ(t.stacks.find(Key{2, 1}), 0U);
  EXPECT_NE(t.stacks.find(Key{1, 2}), 0U);
  EXPECT_EQ(t.stacks.frames(stack).size(), 2U);
}

TEST(StackTable, StacksShareWhatTheyBeginWith) {
  Table t;
  const std::uint32_t first = t.stacks.add(Key{1}, Frames{"main", "train", "forward"});
  const std::uint32_t second = t.stacks.add(Key{2}, Frames{"main", "train", "backward"});
  EXPECT_NE(first, second);
  EXPECT_EQ(t.kept.count(Action::kFrame), 4U);
  // As a reader puts them together.
  std::map<std::uint32_t, std::int64_t> callers;
  for (const EventRecord& event : t.kept.events) {
    if (event.action == Action::kFrame) callers[event.thread] = event.bytes;
  }
  EXPECT_EQ(callers.at(first), callers.at(second));
  EXPECT_EQ(t.stacks.add(Key{3}, Frames{"main", "train", "forward"}), first) << "the same lines by another key";
}

TEST(StackTable, AThreadSaysItsStackWhenItChanges) {
  Table t;
  const std::uint32_t stack = t.stacks.add(Key{1}, Frames{"main"});
  for (int i = 0; i < 3; ++i) t.stacks.enter(stack);
  EXPECT_EQ(t.kept.count(Action::kStack), 1U);
  std::thread([&] { t.stacks.enter(stack); }).join();
  EXPECT_EQ(t.kept.count(Action::kStack), 2U);
  t.stacks.enter(0);
  EXPECT_EQ(t.kept.count(Action::kStack), 3U);
  EXPECT_EQ(t.kept.events.back().bytes, 0);
}

TEST(StackTable, AFullTableHasOneNumberForTheRest) {
  Table t;
  Key key(200);  // two words for each of 100 frames
  std::uint64_t added = 0;
  for (std::uint32_t last = 0; last != 1 && added < StackTable::kMostStacks + 2; ++added) {
    key.front() = added;
    const std::uint32_t stack = t.stacks.add(key, Frames{"main", std::to_string(added)});
    if (t.stacks.frames(stack).front() == "more stacks than a trace holds") last = 1;
  }
  EXPECT_EQ(added - 1, StackTable::kMostWords / key.size());
  const std::uint32_t others = t.stacks.find(Key{~std::uint64_t{0}});
  EXPECT_EQ(t.stacks.frames(others), Frames{"more stacks than a trace holds"});
  EXPECT_EQ(t.stacks.add(Key{~std::uint64_t{1}}, Frames{"late"}), others);
  key.front() = 7;
  EXPECT_EQ(t.stacks.frames(t.stacks.find(key)), (Frames{"7", "main"})) << "what it knew it still knows";
}

TEST(StackTable, ThreadsThatAddTheSameAgree) {
  Table t;
  std::vector<std::vector<std::uint32_t>> found(4);
  {
    std::vector<std::jthread> threads;
    for (auto& numbers : found) {
      threads.emplace_back([&t, &numbers] {
        for (std::uint64_t i = 0; i < 500; ++i) {
          const std::uint32_t known = t.stacks.find(Key{i});
          numbers.push_back(known != 0 ? known : t.stacks.add(Key{i}, Frames{"main", std::to_string(i)}));
        }
      });
    }
  }
  for (const auto& numbers : found) EXPECT_EQ(numbers, found.front());
  EXPECT_EQ(t.kept.count(Action::kFrame), 501U);
}

}  // namespace
}  // namespace ebbtide
