#include "tests/fakes/fake_cupti.h"

#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

using Request = void (*)(std::uint8_t**, std::size_t*, std::size_t*);
using Complete = void (*)(void*, std::uint32_t, std::uint8_t*, std::size_t, std::size_t);
using Clock = std::uint64_t (*)();
using Record = std::vector<std::uint8_t>;

constexpr int kInvalidParameter = 1;
constexpr int kInvalidOperation = 7;
constexpr int kNoMoreRecords = 12;
constexpr int kMultipleSubscribers = 39;
constexpr std::uint64_t kBehind = 1'000'000'000'000;

struct State {
  std::mutex lock;
  std::map<std::pair<std::string, std::uint32_t>, int> failures;
  std::deque<Record> waiting;
  std::map<const std::uint8_t*, std::deque<std::size_t>> sizes;  // of the records in a buffer that is out
  std::set<std::uint32_t> enabled;
  std::size_t dropped = 0, limit = 0;
  std::uint32_t version = 130000;
  int subscriber = 0;
  bool is_subscribed = false;
  Request request = nullptr;
  Complete complete = nullptr;
  Clock clock = nullptr;
};

State& state() {
  static auto* const only = new State;
  return *only;
}

int failure(const std::string& function, std::uint32_t kind = 0) {
  const std::lock_guard guard(state().lock);
  for (const std::uint32_t asked : {kind, 0U}) {
    if (const auto found = state().failures.find({function, asked}); found != state().failures.end()) {
      return found->second;
    }
  }
  return 0;
}

// Fills one buffer from the front of what waits. False when nothing is left.
bool deliver_one() {
  Request request = nullptr;
  Complete complete = nullptr;
  {
    const std::lock_guard guard(state().lock);
    if (state().waiting.empty() || state().request == nullptr) return false;
    request = state().request;
    complete = state().complete;
  }
  std::uint8_t* buffer = nullptr;
  std::size_t size = 0;
  std::size_t most = 0;
  request(&buffer, &size, &most);
  std::size_t used = 0;
  {
    const std::lock_guard guard(state().lock);
    if (buffer == nullptr) {
      ++state().dropped;
      state().waiting.pop_front();
      return true;
    }
    if (state().limit != 0 && state().limit < size) size = state().limit;
    while (!state().waiting.empty() && used + state().waiting.front().size() <= size) {
      const Record& record = state().waiting.front();
      std::memcpy(buffer + used, record.data(), record.size());
      state().sizes[buffer].push_back(record.size());
      used += record.size();
      state().waiting.pop_front();
    }
  }
  complete(nullptr, 0, buffer, size, used);
  const std::lock_guard guard(state().lock);
  state().sizes.erase(buffer);
  return true;
}

}  // namespace

extern "C" {

void fake_cupti_reset() {
  State& now = state();
  const std::lock_guard guard(now.lock);
  now.failures.clear();
  now.waiting.clear();
  now.enabled.clear();
  now.dropped = now.limit = 0;
  now.version = 130000;
  now.is_subscribed = false;
  now.request = nullptr;
  now.complete = nullptr;
  now.clock = nullptr;
}

void fake_cupti_fail(const char* function, std::uint32_t kind, int result) {
  const std::lock_guard guard(state().lock);
  state().failures[{function, kind}] = result;
}

void fake_cupti_add(const void* record, std::size_t size) {
  std::uint32_t kind = 0;
  std::memcpy(&kind, record, sizeof kind);
  const auto* bytes = static_cast<const std::uint8_t*>(record);
  const std::lock_guard guard(state().lock);
  if (state().enabled.contains(kind)) state().waiting.emplace_back(bytes, bytes + size);
}

void fake_cupti_deliver() {
  while (deliver_one()) {
  }
}

void fake_cupti_set_version(std::uint32_t version) { state().version = version; }
void fake_cupti_limit_buffers(std::size_t bytes) { state().limit = bytes; }
int fake_cupti_is_subscribed() { return state().is_subscribed ? 1 : 0; }
int fake_cupti_is_enabled(std::uint32_t kind) { return state().enabled.contains(kind) ? 1 : 0; }

std::uint64_t fake_cupti_now() {
  if (state().clock != nullptr) return state().clock();
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count()) - kBehind;
}

int cuptiGetVersion(std::uint32_t* version) {
  *version = state().version;
  return failure("GetVersion");
}

int cuptiGetResultString(int result, const char** text) {
  *text = result == kInvalidOperation ? "CUPTI_ERROR_INVALID_OPERATION" : "CUPTI_ERROR_OTHER";
  return 0;
}

int cuptiSubscribe(void** subscriber, void (*callback)(void*, int, std::uint32_t, const void*), void*) {
  if (const int failed = failure("Subscribe"); failed != 0) return failed;
  if (callback == nullptr) return kInvalidParameter;
  const std::lock_guard guard(state().lock);
  if (std::exchange(state().is_subscribed, true)) return kMultipleSubscribers;
  *subscriber = &state().subscriber;
  return 0;
}

int cuptiUnsubscribe(void* subscriber) {
  const std::lock_guard guard(state().lock);
  if (subscriber != &state().subscriber || !std::exchange(state().is_subscribed, false)) return kInvalidParameter;
  return 0;
}

int cuptiActivityRegisterCallbacks(Request request, Complete complete) {
  if (const int failed = failure("ActivityRegisterCallbacks"); failed != 0) return failed;
  if (request == nullptr || complete == nullptr) return kInvalidParameter;
  const std::lock_guard guard(state().lock);
  state().request = request;
  state().complete = complete;
  return 0;
}

int cuptiActivityEnable(std::uint32_t kind) {
  if (const int failed = failure("ActivityEnable", kind); failed != 0) return failed;
  const std::lock_guard guard(state().lock);
  if (state().request == nullptr) return kInvalidOperation;
  state().enabled.insert(kind);
  return 0;
}

int cuptiActivityDisable(std::uint32_t kind) {
  const std::lock_guard guard(state().lock);
  state().enabled.erase(kind);
  return 0;
}

int cuptiActivityGetNextRecord(std::uint8_t* buffer, std::size_t valid_size, std::uint8_t** record) {
  const std::lock_guard guard(state().lock);
  std::deque<std::size_t>& left = state().sizes[buffer];
  std::uint8_t* const next = *record == nullptr ? buffer : *record + left.front();
  if (*record != nullptr) left.pop_front();
  if (left.empty() || static_cast<std::size_t>(next - buffer) >= valid_size) return kNoMoreRecords;
  *record = next;
  return 0;
}

int cuptiActivityGetNumDroppedRecords(void*, std::uint32_t, std::size_t* dropped) {
  const std::lock_guard guard(state().lock);
  *dropped = std::exchange(state().dropped, 0);
  return 0;
}

int cuptiActivityFlushAll(std::uint32_t) {
  if (const int failed = failure("ActivityFlushAll"); failed != 0) return failed;
  fake_cupti_deliver();
  return 0;
}

int cuptiActivityFlushPeriod(std::uint32_t) { return failure("ActivityFlushPeriod"); }

int cuptiGetTimestamp(std::uint64_t* time) {
  *time = fake_cupti_now();
  return failure("GetTimestamp");
}

int cuptiActivityRegisterTimestampCallback(Clock clock) {
  if (const int failed = failure("ActivityRegisterTimestampCallback"); failed != 0) return failed;
  const std::lock_guard guard(state().lock);
  state().clock = clock;
  return 0;
}

int cuptiActivityEnableAllocationSource(std::uint8_t) { return failure("ActivityEnableAllocationSource"); }

}  // extern "C"
