// Who wants to be told of every block of an arena: statistics and memory histories.
#pragma once

#include <optional>
#include <vector>

#include "allocator/base/units.h"
#include "allocator/device/stream_fences.h"

namespace ebbtide {

struct LiveTotals {
  Bytes live, peak;
};

// Called with the engine's lock; of blocks, in the order in which blocks take and leave their places, so that what is counted
// is never two blocks at one place. Must not call the engine, must not throw, must not wait for the host.
class ArenaObserver {
 public:
  virtual ~ArenaObserver() = default;

  virtual void placed(const void* address, Bytes size, StreamId stream) noexcept = 0;
  virtual void released(const void* address, Bytes size) noexcept = 0;
  // A good moment to ask the driver for what does not change with every block.
  virtual void round_ended() noexcept {}

  // All that is alive, here and upstream, for who counts that himself: then the engine need not follow blocks that no
  // plan can serve. Always an answer or never one.
  virtual std::optional<LiveTotals> live() noexcept { return std::nullopt; }

  // Of who has live(): the sizes of what is alive as the first round begins, in any order and as often as it is there.
  virtual std::vector<Bytes> sizes_alive() noexcept { return {}; }
};

}  // namespace ebbtide
