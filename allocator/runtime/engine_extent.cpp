// How much memory the arena holds: grown as it is used, shrunk to what plans need, and to what is alive where memory is out.
#include "allocator/runtime/engine.h"

#include <algorithm>

#include "allocator/base/log.h"

namespace ebbtide {
namespace {

constexpr Bytes kWorthShrinking{64 * kMiB.value};
constexpr std::int64_t kShrinkingPart = 128;  // and at least this part of the arena
constexpr std::int64_t kGrowthSteps = 32;  // the arena grows by at least this part of its height

}  // namespace

// The place is taken already, so that the lock can be given up while the driver is called.
bool Engine::make_usable(Span place, std::unique_lock<QuickLock>& lock) {
  const Bytes needed{place.end.value};
  const Bytes height = std::max(server_.height(), needed);
  const Bytes step{height.value / kGrowthSteps};
  const bool in_steps = arena_.range().grows_in_place();
  const bool is_inside = needed <= arena_.extent();
  const Bytes target = is_inside ? needed : in_steps ? std::min(std::max(needed, arena_.extent() + step), height) : height;
  lock.unlock();
  const std::lock_guard growing(growth_);
  Status grown = arena_.grow_to(target);
  if (!grown.ok() && target > needed) grown = arena_.grow_to(needed);
  if (grown.ok()) grown = arena_.fill(place);
  lock.lock();
  adopt_extent();
  if (grown.ok()) {
    emit(Action::kArenaGrow, Placement::kPlanned, nullptr, arena_.held(), home_);
  } else {
    EBBTIDE_INFO("the arena cannot be used up to %s: %s", to_string(needed).c_str(), grown.error().message.c_str());
  }
  return grown.ok();
}

// A better plan, or the end of an exceptional round, leaves memory above the plan that nothing needs.
void Engine::shrink_to_plan(std::unique_lock<QuickLock>& lock) {
  const Bytes needed = std::max(height_in_force(), Bytes{arena_.blocks().highest_end().value});
  const Bytes spare = arena_.extent() - needed;
  if (spare < kWorthShrinking || spare.value < arena_.extent().value / kShrinkingPart) return;
  shrink_to(needed, lock);
}

// What is kept is settled with both locks: whoever places a block above it meanwhile is not cut off.
void Engine::shrink_to(Bytes kept, std::unique_lock<QuickLock>& lock) {
  lock.unlock();
  const std::lock_guard growing(growth_);
  lock.lock();
  kept = std::max(kept, Bytes{arena_.blocks().highest_end().value});
  if (kept >= arena_.extent()) return;
  arena_.withdraw_to(kept);
  lock.unlock();
  arena_.shrink_to(kept);
  lock.lock();
  note_trimmed();
}

Bytes Engine::release_idle() noexcept {
  const std::unique_lock growing(growth_, std::try_to_lock);
  if (!growing.owns_lock()) return {};
  Bytes kept;
  Bytes before;
  {
    const std::unique_lock lock(lock_, std::try_to_lock);
    if (!lock.owns_lock()) return {};
    kept = Bytes{arena_.blocks().highest_end().value};
    before = arena_.extent();
    if (kept >= before) return {};
    arena_.withdraw_to(kept);
  }
  arena_.shrink_to(kept);
  const std::lock_guard lock(lock_);
  note_trimmed();
  return before - arena_.extent();
}

Bytes Engine::release_inside(Bytes wanted) noexcept {
  const std::unique_lock growing(growth_, std::try_to_lock);
  if (!growing.owns_lock()) return {};
  std::vector<Span> idle;
  Bytes before;
  {
    const std::unique_lock lock(lock_, std::try_to_lock);
    if (!lock.owns_lock()) return {};
    before = arena_.held();
    idle = arena_.withdraw_idle();
  }
  arena_.release_inside(idle, wanted);
  const std::lock_guard lock(lock_);
  note_trimmed();
  return before - arena_.held();
}

void Engine::adopt_extent() {
  arena_.adopt_extent();
  live_.set_extent(arena_.held());
}

void Engine::note_trimmed() {
  adopt_extent();
  emit(Action::kArenaTrim, Placement::kPlanned, nullptr, arena_.held(), home_);
}

}  // namespace ebbtide
