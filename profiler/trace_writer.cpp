#include "profiler/trace_writer.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "allocator/base/log.h"
#include "profiler/trace_file.h"
#include "profiler/trace_format.h"

namespace ebbtide {
namespace {

// Producers cannot afford to wake us, so we look. The default ring holds a round trip at 6 million
// events a second.
constexpr std::chrono::milliseconds kPollInterval{10};
// Only a thread that died between claiming a slot and filling it can make us wait longer.
constexpr std::chrono::seconds kFlushLimit{10};
constexpr int kFinalPolls = 100;

}  // namespace

// Shared with the thread. Lives on the heap of its own, because a forked child must neither destroy
// nor unlock what its parent's thread was using at that moment: it leaks this.
struct TraceWriter::State {
  State(TraceFile opened, EventRing& source) : file(std::move(opened)), ring(source) {}

  void run();
  std::size_t move_block(std::vector<EventRecord>& buffer);
  void finish(std::vector<EventRecord>& buffer);
  // Returns whether this is the first one.
  bool keep_first_failure(const Status& status);
  void give_up(const Status& status);

  TraceFile file;  // the thread's alone
  EventRing& ring;
  const pid_t owner = getpid();
  std::mutex closing;  // taken before `mutex`; serialises close()
  std::mutex mutex;    // guards all below but `thread`, which is guarded by `closing`
  std::condition_variable wake;
  std::condition_variable progressed;
  bool stopping = false;
  std::uint64_t wanted_ticks = 0;   // flush() waits until so many are written
  std::uint64_t written_ticks = 0;  // ticks that reached the file or were given up
  std::optional<Error> failure;
  std::thread thread;
};

bool TraceWriter::State::keep_first_failure(const Status& status) {
  const std::lock_guard lock(mutex);
  if (failure.has_value()) return false;
  failure = status.error();
  return true;
}

// What is still in the ring is drained and dropped; training goes on.
void TraceWriter::State::give_up(const Status& status) {
  if (!keep_first_failure(status)) return;
  ring.set_enabled(false);
  EBBTIDE_WARN("EBBTIDE_TRACE ends early: %s; going on without a trace", status.error().message.c_str());
}

// Returns how many events were moved.
std::size_t TraceWriter::State::move_block(std::vector<EventRecord>& buffer) {
  const std::size_t count = ring.drain(buffer);
  if (count == 0) return 0;
  const Status status = file.append(std::span(buffer).first(count), ring.lost());
  if (!status) give_up(status);
  const std::lock_guard lock(mutex);
  written_ticks = ring.drained();
  progressed.notify_all();
  return count;
}

void TraceWriter::State::run() {
  std::vector<EventRecord> buffer(kMaxBlockRecords);
  for (;;) {
    if (move_block(buffer) == buffer.size()) continue;
    std::unique_lock lock(mutex);
    if (stopping) break;
    // What a flush still misses is being filled in right now, so it is not worth a sleep.
    wake.wait_for(lock, kPollInterval, [this] { return stopping || wanted_ticks > written_ticks; });
  }
  finish(buffer);
}

// The ring is disabled by now, but threads that saw it enabled may still be filling in a slot.
void TraceWriter::State::finish(std::vector<EventRecord>& buffer) {
  for (int polls = 0; polls < kFinalPolls && ring.drained() < ring.recorded();) {
    if (move_block(buffer) > 0) continue;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
    ++polls;
  }
  const std::uint64_t never_filled = ring.recorded() - ring.drained();
  const Status status = file.finish(ring.lost() + never_filled);
  if (!status) give_up(status);
  const std::lock_guard lock(mutex);
  written_ticks = ring.recorded();
  progressed.notify_all();
}

Result<std::unique_ptr<TraceWriter>> TraceWriter::open(const std::string& path, EventRing& ring) {
  Result<TraceFile> file = TraceFile::create(path);
  if (!file) return file.error();
  auto state = std::make_unique<State>(std::move(file).value(), ring);
  // The program's signals are for the program's threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::optional<Error> refused;
  try {
    state->thread = std::thread([raw = state.get()] { raw->run(); });
    pthread_setname_np(state->thread.native_handle(), "ebbtide-trace");
  } catch (const std::system_error& error) {
    refused =
        Error{ErrorCode::kSystem,
              fmt::format("cannot start the thread that writes trace {}: {}", path, error.what())};
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (refused) return *refused;
  return std::unique_ptr<TraceWriter>(new TraceWriter(std::move(state)));
}

TraceWriter::TraceWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

TraceWriter::~TraceWriter() {
  if (is_in_forked_child()) {
    static_cast<void>(state_.release());
  } else {
    static_cast<void>(close());
  }
}

bool TraceWriter::is_in_forked_child() const { return getpid() != state_->owner; }

Status TraceWriter::flush() {
  if (is_in_forked_child()) return Nothing{};
  State& state = *state_;
  const std::uint64_t wanted = state.ring.recorded();
  std::unique_lock lock(state.mutex);
  state.wanted_ticks = std::max(state.wanted_ticks, wanted);
  state.wake.notify_one();
  const bool done = state.progressed.wait_for(
      lock, kFlushLimit, [&] { return state.written_ticks >= wanted || state.failure; });
  if (state.failure) return *state.failure;
  if (done) return Nothing{};
  return Error{ErrorCode::kTimeout, "the trace could not be flushed in time"};
}

Status TraceWriter::close() {
  if (is_in_forked_child()) return Nothing{};
  State& state = *state_;
  const std::lock_guard closing(state.closing);
  if (state.thread.joinable()) {
    state.ring.set_enabled(false);
    {
      const std::lock_guard lock(state.mutex);
      state.stopping = true;
    }
    state.wake.notify_one();
    state.thread.join();
  }
  if (state.failure) return *state.failure;
  return Nothing{};
}

}  // namespace ebbtide
