#include "profiler/cupti/cupti_session.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <shared_mutex>
#include <thread>
#include <utility>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

constexpr std::uint32_t kFlushMilliseconds = 100;
constexpr std::uint32_t kForced = 1;  // also buffers with records that are not finished
constexpr std::chrono::milliseconds kNap{1};
constexpr int kMostNaps = 100;  // of one buffer
constexpr std::array kKinds{ActivityKind::kMemory, ActivityKind::kKernel, ActivityKind::kCopy,
                            ActivityKind::kCopyBetweenDevices, ActivityKind::kMemset};

const char* name_of(ActivityKind kind) {
  switch (kind) {
    case ActivityKind::kCopy:
      return "copies";
    case ActivityKind::kCopyBetweenDevices:
      return "copies between devices";
    case ActivityKind::kMemset:
      return "memsets";
    case ActivityKind::kKernel:
      return "kernels";
    case ActivityKind::kMemory:
      return "memory";
  }
  return "";
}

std::uint64_t steady_now() {
  return static_cast<std::uint64_t>(
      std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// CUPTI's callbacks carry nothing that could tell whose they are. The lock is shared by callbacks, and taken alone
// to set the pointer.
struct Running {
  std::shared_mutex lock;
  CuptiSession* session = nullptr;
};
Running& running() {
  static auto* const only = new Running;  // callbacks may come after static destructors
  return *only;
}

bool claim(CuptiSession* session) {
  const std::lock_guard guard(running().lock);
  if (running().session != nullptr) return false;
  running().session = session;
  return true;
}

void leave(const CuptiSession* session) {
  const std::lock_guard guard(running().lock);
  if (running().session == session) running().session = nullptr;
}

}  // namespace

CuptiSession::CuptiSession(const CuptiLibrary& library, EventRing& ring, OwnerNames& names)
    : library_(library), ring_(ring), names_(names) {}

Result<std::unique_ptr<CuptiSession>> CuptiSession::start(const std::string& path, EventRing& ring,
                                                          OwnerNames& names) {
  const Result<CuptiLibrary> library = CuptiLibrary::load(path);
  if (!library.ok()) return library.error();
  std::unique_ptr<CuptiSession> session(new CuptiSession(library.value(), ring, names));
  if (!claim(session.get())) return library.value().error(static_cast<int>(CuptiResult::kInUse));
  if (const Status subscribed = session->subscribe(); !subscribed.ok()) {
    leave(session.get());
    return subscribed.error();
  }
  if (const Status enabled = session->enable(); !enabled.ok()) {
    session->stop();
    return enabled.error();
  }
  return session;
}

CuptiSession::~CuptiSession() { stop(); }

// To subscribe is what keeps two profilers from taking each other's records: the callbacks alone would be replaced.
Status CuptiSession::subscribe() {
  const int result = library_.subscribe(&subscriber_, [](void*, int, std::uint32_t, const void*) {}, nullptr);
  if (result == 0) return Nothing{};
  subscriber_ = nullptr;
  return library_.error(result);
}

Status CuptiSession::enable() {
  if (const int result = library_.register_callbacks(&request, &complete); result != 0) return library_.error(result);
  const Result<std::int64_t> offset = clock_offset();
  if (!offset.ok()) return offset.error();
  decoder_ = std::make_unique<ActivityDecoder>(ring_, names_, offset.value(), has_sources());
  std::string refused;
  int why = 0;
  std::size_t count = 0;
  for (const ActivityKind kind : kKinds) {
    const int result = library_.enable(static_cast<std::uint32_t>(kind));
    if (result == 0) continue;
    refused += (count++ == 0 ? "" : ", ") + std::string(name_of(kind));
    why = result;
  }
  if (count == kKinds.size()) return library_.error(why);
  if (count > 0) {
    EBBTIDE_WARN("EBBTIDE_CUPTI: not recorded: %s (%s)", refused.c_str(), library_.error(why).message.c_str());
  }
  if (library_.flush_period != nullptr) static_cast<void>(library_.flush_period(kFlushMilliseconds));
  tell_counts();
  return Nothing{};
}

// Best is that CUPTI itself counts by our clock.
Result<std::int64_t> CuptiSession::clock_offset() const {
  if (library_.register_clock != nullptr && library_.register_clock(&steady_now) == 0) return 0;
  const std::uint64_t before = steady_now();
  std::uint64_t theirs = 0;
  if (const int result = library_.get_timestamp(&theirs); result != 0) return library_.error(result);
  const std::uint64_t after = steady_now();
  return static_cast<std::int64_t>(before + (after - before) / 2 - theirs);
}

bool CuptiSession::has_sources() const {
  std::uint32_t version = 0;
  return library_.enable_allocation_source != nullptr && library_.get_version(&version) == 0 &&
         version >= kFirstVersionWithSource && library_.enable_allocation_source(1) == 0;
}

void CuptiSession::stop() {
  void* const subscriber = std::exchange(subscriber_, nullptr);
  if (subscriber == nullptr) return;
  if (library_.flush_period != nullptr) static_cast<void>(library_.flush_period(0));
  static_cast<void>(library_.flush_all(kForced));
  for (const ActivityKind kind : kKinds) static_cast<void>(library_.disable(static_cast<std::uint32_t>(kind)));
  static_cast<void>(library_.unsubscribe(subscriber));
  leave(this);
  if (decoder_ != nullptr) tell_counts();
}

void CuptiSession::request(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records) {
  const std::shared_lock guard(running().lock);
  *buffer = running().session == nullptr ? nullptr : running().session->buffers_.take();
  *size = *buffer == nullptr ? 0 : ActivityBuffers::kBytes;
  *most_records = 0;  // as many as fit
}

void CuptiSession::complete(void* context, std::uint32_t stream, std::uint8_t* buffer, std::size_t,
                            std::size_t valid_size) {
  const std::shared_lock guard(running().lock);
  if (running().session != nullptr) running().session->take_over(context, stream, buffer, valid_size);
}

void CuptiSession::take_over(void* context, std::uint32_t stream, std::uint8_t* buffer, std::size_t valid_size) {
  std::uint64_t lost = 0;
  {
    const std::lock_guard guard(lock_);
    int naps_left = kMostNaps;
    void* record = nullptr;
    while (decoder_ != nullptr && library_.next_record(buffer, valid_size, &record) == 0) {
      if (wait_for_room(naps_left) && decoder_->add(record)) {
        written_.fetch_add(1, std::memory_order_relaxed);
      } else {
        ++lost;
      }
    }
  }
  std::size_t dropped = 0;
  if (library_.dropped_records(context, stream, &dropped) == 0) lost += dropped;
  buffers_.give_back(buffer);
  if (lost == 0) return;
  lost_.fetch_add(lost, std::memory_order_relaxed);
  tell_counts();
}

// This is CUPTI's thread, or the one that stops: no training waits here.
bool CuptiSession::wait_for_room(int& naps_left) const {
  while (ring_.recorded() - ring_.drained() >= ring_.capacity() / 2) {
    if (naps_left == 0) return false;
    --naps_left;
    std::this_thread::sleep_for(kNap);
  }
  return true;
}

void CuptiSession::tell_counts() {
  EventRecord event;
  event.action = Action::kActivityCount;
  event.device = kNoDevice;
  event.bytes = static_cast<std::int64_t>(lost());
  event.address = written();
  ring_.record(event);
}

}  // namespace ebbtide
