#include "hooks/status_writer.h"

#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

std::int64_t now_in_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

StatusDevice status_of(const Engine& engine) {
  const Engine::Snapshot now = engine.snapshot();
  StatusDevice status;
  status.device = engine.options().device;
  status.live = now.live.value;
  status.peak_live = now.counters.peak_live.value;
  status.reserved = now.reserved.value;
  status.peak_reserved = now.peak_reserved.value;
  status.arena = now.arena.value;
  status.plan_height = now.serving ? now.plan_height.value : 0;
  status.settled_bytes = now.counters.settled.bytes.value;
  status.settled_planned_bytes = now.counters.settled_planned.bytes.value;
  status.divergences = std::accumulate(now.counters.divergences.begin(), now.counters.divergences.end(), std::int64_t{0});
  status.rounds = now.counters.rounds;
  return status;
}

}  // namespace

StatusWriter::StatusWriter(const std::string& path) {
  auto page = StatusPage::create(path);
  if (!page.ok()) {
    EBBTIDE_DEBUG("ebbtide top will not see this process: %s", page.error().message.c_str());
    return;
  }
  page_ = std::move(page).value();
  status_.process = ::getpid();
  status_.started_ns = status_.updated_ns = now_in_ns();
  page_->publish(status_);
}

void StatusWriter::mark(MarkKind kind, const std::vector<Engine*>& engines, const SwapTable& swaps) {
  const std::unique_lock lock(lock_, std::try_to_lock);
  if (!lock.owns_lock() || page_ == nullptr) return;
  const std::int64_t now = now_in_ns();
  count_step(kind, now);
  if (now - status_.updated_ns < std::chrono::nanoseconds(kPeriod).count()) return;
  gather(now, engines, swaps);
  page_->publish(status_);
}

void StatusWriter::close() {
  const std::lock_guard lock(lock_);
  page_.reset();
}

void StatusWriter::count_step(MarkKind kind, std::int64_t now_ns) {
  if (kind == MarkKind::kUser && step_kind_ != kind) {
    step_kind_ = kind;
    last_step_at_ns_ = 0;
    status_.steps = 0;
  }
  if (kind != step_kind_) return;
  ++status_.steps;
  if (last_step_at_ns_ != 0) status_.last_step_ns = now_ns - last_step_at_ns_;
  last_step_at_ns_ = now_ns;
}

void StatusWriter::gather(std::int64_t now_ns, const std::vector<Engine*>& engines, const SwapTable& swaps) {
  status_.updated_ns = now_ns;
  status_.devices = static_cast<std::int64_t>(std::min(engines.size(), Status1::kMostDevices));
  for (std::size_t i = 0; i < static_cast<std::size_t>(status_.devices); ++i) status_.device[i] = status_of(*engines[i]);
  status_.pinned = status_.host_live = status_.swapped_out = status_.swapped_in = status_.copying_ns = status_.exposed_ns = 0;
  for (const SwapTable::Entry& entry : swaps.all()) {
    const SwapStats swap = entry.swap->stats();
    status_.pinned += swap.slab.value;
    status_.host_live += swap.live.value;
    status_.swapped_out += swap.swapped_out.value;
    status_.swapped_in += swap.swapped_in.value;
    status_.copying_ns += swap.out.copying_ns + swap.in.copying_ns;
    status_.exposed_ns += swap.out.exposed_ns + swap.in.exposed_ns;
  }
}

}  // namespace ebbtide
