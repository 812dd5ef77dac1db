#include "allocator/runtime/plan_worker.h"

#include <algorithm>
#include <utility>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMaxQueue = 64;  // rounds of a program that never repeats are not worth keeping

// For EBBTIDE_LOG=debug: what was learnt from, and what is known now.
void describe(const ProgramBook& book, const std::deque<Round>& rounds) {
  if (log_level() < LogLevel::kDebug) return;
  for (const Round& round : rounds) {
    EBBTIDE_DEBUG("learnt round %u: kind %d source %u, %zu requests, %zu survivors", round.serial,
                  static_cast<int>(round.kind), round.source, round.requests.size(), round.survivors.size());
  }
  for (const Program& program : book.programs) {
    Bytes residents;
    for (const Incoming& incoming : program.incoming) residents += incoming.size;
    EBBTIDE_DEBUG("program %u: kind %d source %u, %zu nodes in %zu classes, %zu shapes, %zu residents of %s, "
                  "height %s, lower bound %s, learnt %u",
                  program.id, static_cast<int>(program.kind), program.source, program.nodes.size(),
                  program.class_sizes.size(), program.shapes, program.incoming.size(), to_string(residents).c_str(),
                  to_string(program.height).c_str(), to_string(program.lower_bound).c_str(), program.learnt);
  }
}

}  // namespace

PlanWorker::PlanWorker(ProgramBook book, Bytes alignment, std::chrono::milliseconds planning_time)
    : alignment_(alignment), planning_time_(planning_time), published_(std::make_shared<ProgramBook>(book)), book_(std::move(book)) {}

PlanWorker::~PlanWorker() { stop(); }

void PlanWorker::submit(Round round, const ProgramBook::Use& last_served) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || abandoned_ || queue_.size() >= kMaxQueue) return;
  queue_.push_back(std::move(round));
  last_served_ = last_served;
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
}

std::shared_ptr<const ProgramBook> PlanWorker::published() const {
  const std::lock_guard lock(mutex_);
  return published_;
}

bool PlanWorker::wait_idle(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  if (abandoned_) return true;
  return changed_.wait_for(lock, limit, [this] { return queue_.empty() && !busy_; });
}

void PlanWorker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_.clear();
    changed_.notify_all();
  }
  if (thread_.joinable() && !abandoned_) thread_.join();
}

void PlanWorker::abandon_after_fork() {
  abandoned_ = true;
  if (thread_.joinable()) thread_.detach();
}

PlanWorker::Times PlanWorker::times() const {
  const std::lock_guard lock(mutex_);
  return times_;
}

void PlanWorker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    std::deque<Round> rounds = std::exchange(queue_, {});
    const ProgramBook::Use used = last_served_;
    busy_ = true;
    lock.unlock();
    const auto begin = std::chrono::steady_clock::now();
    book_.note_use(used);
    for (const Round& round : rounds) book_.learn(round);
    PlanOptions options;
    options.alignment = alignment_;
    options.should_stop = [this, begin] { return std::chrono::steady_clock::now() - begin > planning_time_; };
    const Status made = make_plans(book_, options);
    if (!made.ok()) EBBTIDE_WARN("plan refused: %s", made.error().message.c_str());
    describe(book_, rounds);
    auto copy = made.ok() ? std::make_shared<const ProgramBook>(book_) : nullptr;
    const auto spent = std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
    lock.lock();
    if (copy) published_ = std::move(copy);
    times_.plans += made.ok() ? 1 : 0;
    times_.total_ns += spent;
    times_.longest_ns = std::max<std::int64_t>(times_.longest_ns, spent);
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace ebbtide
