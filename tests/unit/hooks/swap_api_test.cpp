// Swapping through the C interface, as a program meets it.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "hooks/ebbtide.h"

namespace {

constexpr int kHost = -1;
constexpr std::int64_t kSize = 100'000;

class SwapApi : public testing::Test {
 protected:
  SwapApi() {
    EXPECT_EQ(ebbtide_swap_open(kHost, 1 << 20, &swap_), EBBTIDE_OK) << ebbtide_last_error();
  }
  ~SwapApi() override { ebbtide_swap_close(swap_); }

  ebbtide_status swap_out(const void* address, std::int64_t bytes, std::uint64_t* ticket) const {
    const ebbtide_swap_source source{reinterpret_cast<std::uint64_t>(address), bytes};
    return ebbtide_swap_out(swap_, &source, 1, 0, ticket);
  }
  ebbtide_swap_stats stats() const {
    ebbtide_swap_stats stats{};
    stats.struct_size = sizeof(stats);
    EXPECT_EQ(ebbtide_swap_get_stats(swap_, &stats), EBBTIDE_OK);
    return stats;
  }

  ebbtide_swap swap_ = 0;
};

TEST_F(SwapApi, BytesGoOutAndComeBack) {
  const std::vector<char> original(kSize, 'e');
  std::vector<char> tensor = original;
  std::uint64_t ticket = 0;
  ASSERT_EQ(swap_out(tensor.data(), kSize, &ticket), EBBTIDE_OK);
  ASSERT_EQ(ebbtide_swap_await_out(swap_, ticket, 0), EBBTIDE_OK);
  tensor.assign(kSize, 'x');
  ASSERT_EQ(ebbtide_swap_in(swap_, ticket, 0, tensor.data(), kSize, 0), EBBTIDE_OK);
  ASSERT_EQ(ebbtide_swap_await_in(swap_, ticket, 0), EBBTIDE_OK);
  EXPECT_EQ(tensor, original);
  EXPECT_EQ(stats().live_bytes, 100'352);
  ASSERT_EQ(ebbtide_swap_release(swap_, ticket), EBBTIDE_OK);
  const ebbtide_swap_stats after = stats();
  EXPECT_EQ(after.device, kHost);
  EXPECT_EQ(after.live_bytes, 0);
  EXPECT_EQ(after.swapped_out_bytes, kSize);
  EXPECT_EQ(after.swapped_in_bytes, kSize);
  EXPECT_EQ(after.host_budget_bytes, 1 << 20);
  EXPECT_EQ(after.rounds, 1);
}

TEST_F(SwapApi, SeveralTicketsAreAwaitedTogether) {
  std::vector<std::vector<char>> tensors;
  std::vector<std::uint64_t> tickets(3);
  for (char i = 0; i < 3; ++i) tensors.emplace_back(kSize, i);
  for (std::size_t i = 0; i < 3; ++i) ASSERT_EQ(swap_out(tensors[i].data(), kSize, &tickets[i]), EBBTIDE_OK);
  ASSERT_EQ(ebbtide_swap_await_all_out(swap_, tickets.data(), tickets.size(), 0), EBBTIDE_OK);
  for (char i = 0; i < 3; ++i) {
    auto& tensor = tensors[static_cast<std::size_t>(i)];
    tensor.assign(kSize, 'x');
    const std::uint64_t ticket = tickets[static_cast<std::size_t>(i)];
    ASSERT_EQ(ebbtide_swap_in(swap_, ticket, 0, tensor.data(), kSize, 0), EBBTIDE_OK);
    ASSERT_EQ(ebbtide_swap_await_in(swap_, ticket, 0), EBBTIDE_OK);
    EXPECT_EQ(tensor, std::vector<char>(kSize, i));
    ASSERT_EQ(ebbtide_swap_release(swap_, ticket), EBBTIDE_OK);
  }
  EXPECT_EQ(ebbtide_swap_await_all_out(swap_, tickets.data(), 1, 0), EBBTIDE_INVALID_ARGUMENT);
  EXPECT_EQ(ebbtide_swap_await_all_out(swap_, tickets.data(), 0, 0), EBBTIDE_OK);
}

TEST_F(SwapApi, ManySourcesShareATicket) {
  std::vector<std::vector<char>> tensors;
  std::vector<ebbtide_swap_source> sources;
  for (int i = 0; i < 40; ++i) tensors.emplace_back(100 * (i + 1), static_cast<char>(i));
  for (const auto& tensor : tensors) {
    sources.push_back(
        {reinterpret_cast<std::uint64_t>(tensor.data()), static_cast<std::int64_t>(tensor.size())});
  }
  std::uint64_t ticket = 0;
  ASSERT_EQ(ebbtide_swap_out(swap_, sources.data(), sources.size(), 0, &ticket), EBBTIDE_OK);
  std::int64_t from = 0;
  for (const auto& tensor : tensors) {
    std::vector<char> target(tensor.size());
    ASSERT_EQ(ebbtide_swap_in(swap_, ticket, from, target.data(),
                              static_cast<std::int64_t>(target.size()), 0),
              EBBTIDE_OK);
    ASSERT_EQ(ebbtide_swap_await_in(swap_, ticket, 0), EBBTIDE_OK);
    EXPECT_EQ(target, tensor);
    from += (static_cast<std::int64_t>(tensor.size()) + 511) / 512 * 512;
  }
  EXPECT_EQ(ebbtide_swap_out(swap_, sources.data(), 0, 0, &ticket), EBBTIDE_INVALID_ARGUMENT);
}

TEST_F(SwapApi, RoomAndReserveAndTheBudgetAgree) {
  std::int64_t room = 0;
  ASSERT_EQ(ebbtide_swap_room(swap_, std::int64_t{1} << 30, &room), EBBTIDE_OK);
  EXPECT_EQ(room, 1 << 20);
  EXPECT_EQ(ebbtide_swap_reserve(swap_, 1 << 20), EBBTIDE_OK);
  EXPECT_EQ(stats().pinned_bytes, 1 << 20);
  EXPECT_EQ(ebbtide_swap_reserve(swap_, (1 << 20) + 1), EBBTIDE_OUT_OF_HOST_MEMORY);
  std::vector<char> large(2 << 20);
  std::uint64_t ticket = 0;
  EXPECT_EQ(swap_out(large.data(), 2 << 20, &ticket), EBBTIDE_OUT_OF_HOST_MEMORY);
  EXPECT_NE(std::string(ebbtide_last_error()).find("host budget"), std::string::npos);
}

TEST_F(SwapApi, AfterCloseEveryCallSaysThatItIsNotOpen) {
  std::uint64_t ticket = 0;
  char byte = 0;
  ASSERT_EQ(swap_out(&byte, 1, &ticket), EBBTIDE_OK);
  ASSERT_EQ(ebbtide_swap_close(swap_), EBBTIDE_OK);
  EXPECT_EQ(ebbtide_swap_release(swap_, ticket), EBBTIDE_INVALID_ARGUMENT);
  EXPECT_EQ(ebbtide_swap_close(swap_), EBBTIDE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(ebbtide_last_error()).find("is not open"), std::string::npos);
  ebbtide_swap other = 0;
  ASSERT_EQ(ebbtide_swap_open(kHost, 0, &other), EBBTIDE_OK);
  EXPECT_NE(other, swap_);
  ebbtide_swap_close(other);
}

TEST_F(SwapApi, ADeviceThatIsNotThereIsRefused) {
  ebbtide_swap swap = 0;
  EXPECT_EQ(ebbtide_swap_open(0, 1, &swap), EBBTIDE_UNSUPPORTED);
  EXPECT_EQ(ebbtide_swap_open(-2, 1, &swap), EBBTIDE_UNSUPPORTED);
}

TEST_F(SwapApi, AForkedChildFindsNothingAndEnds) {
  char byte = 0;
  std::uint64_t ticket = 0;
  ASSERT_EQ(swap_out(&byte, 1, &ticket), EBBTIDE_OK);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_right = ebbtide_swap_await_out(swap_, ticket, 0) == EBBTIDE_INVALID_ARGUMENT &&
                          ebbtide_swap_close(swap_) == EBBTIDE_OK;
    ::_exit(is_right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ebbtide_swap_await_out(swap_, ticket, 0), EBBTIDE_OK);  // or the copy would read what was `byte`
  EXPECT_EQ(ebbtide_swap_release(swap_, ticket), EBBTIDE_OK);
}

TEST_F(SwapApi, ManyThreadsSwapTensorsOfTheirOwn) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this, thread] {
      for (int i = 0; i < 200; ++i) {
        const std::vector<char> source(1000, static_cast<char>(thread * 50 + i % 50));
        std::vector<char> target(1000);
        std::uint64_t ticket = 0;
        ASSERT_EQ(swap_out(source.data(), 1000, &ticket), EBBTIDE_OK);
        ASSERT_EQ(ebbtide_swap_await_out(swap_, ticket, 0), EBBTIDE_OK);
        ASSERT_EQ(ebbtide_swap_in(swap_, ticket, 0, target.data(), 1000, 0), EBBTIDE_OK);
        ASSERT_EQ(ebbtide_swap_await_in(swap_, ticket, 0), EBBTIDE_OK);
        ASSERT_EQ(ebbtide_swap_release(swap_, ticket), EBBTIDE_OK);
        ASSERT_EQ(target, source);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stats().live_bytes, 0);
  EXPECT_EQ(stats().copies_in, 800);
}

}  // namespace
