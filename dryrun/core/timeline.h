// Virtual time: a clock for each stream, one for the host, the links to the host, and what became
// of each training step. Work is never carried out; only when it would begin and end is noted.
//
// The host runs ahead of the devices and waits where a program waits: for a stream, an event, a
// device, a copy that blocks, or a full launch queue. Thread-safe: one lock, never held while
// calling out. All times are seconds since the simulated machine began.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dryrun/core/busy_fabric.h"
#include "dryrun/core/collective.h"
#include "dryrun/core/device_model.h"
#include "dryrun/core/export.h"
#include "dryrun/core/link.h"
#include "dryrun/core/work.h"

namespace ebbtide::dryrun {

using ActivitySeconds = std::array<double, kActivityNames.size()>;

// What a stream's time went into, up to its clock: busy + stalled + starved is all of it.
struct StreamUse {
  ActivitySeconds busy{};
  ActivitySeconds stalled{};  // waiting for another stream, by what that was doing
  double starved = 0;         // nothing was queued: the host had not come that far
};

// Sums over all streams.
struct MachineUse {
  double forward_flops = 0;         // of matrix products and attention, outside of backward
  double flops = 0;                 // of all of them
  double forward_peak_seconds = 0;  // what both would take at the peak of their kind of numbers
  double peak_seconds = 0;
  double out_bytes = 0, in_bytes = 0;
  double tokens = 0;
  double launches = 0, unknown_launches = 0;
  double collectives = 0, collective_seconds = 0, collective_bytes = 0;  // bytes that were sent

  MachineUse& operator+=(const MachineUse& other);
  MachineUse& operator-=(const MachineUse& other);
};

struct Step {
  double seconds = 0;
  StreamUse use;  // of the stream that computed most
  MachineUse machine;
};

// When an event happens, and what it waits for.
struct Moment {
  double time = 0;
  Activity cause = Activity::kOther;
};

// One stretch of a stream's time; neighbours of one kind and name are one.
struct Span {
  int stream = 0;
  Activity activity = Activity::kOther;
  bool is_stall = false;
  double begin = 0, end = 0;
  const char* name = "";  // static lifetime
};

class StreamClock;

class EBBTIDE_DRYRUN_API Timeline {
 public:
  // `ranks`: processes like this one that run on devices of their own beside it.
  Timeline(const DeviceSpeed& speed, int devices, int ranks, bool keeps_spans);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  const DeviceSpeed& speed() const { return speed_; }

  // Streams live as long as the timeline: a pool of them is never given back.
  StreamClock& default_stream(int device) { return *streams_[static_cast<std::size_t>(device)]; }
  StreamClock& add_stream(int device, bool waits_for_default);

  // Products and attention take longer beside collectives that were queued before them.
  void run(StreamClock& stream, const Work& work, bool is_in_backward, const char* name);
  // `blocks`: the host waits until the copy is over.
  void copy(StreamClock& stream, Direction direction, double bytes, bool is_pinned, bool blocks);
  // Collectives of one device take turns on the links that they need, in the order they are queued.
  void communicate(StreamClock& stream, const CollectiveCost& cost, const char* name);

  Moment record(StreamClock& stream);
  void wait(StreamClock& stream, const Moment& moment);
  // Whether it has happened by the host's clock. Asking takes the host some time, so that a loop
  // that asks comes to an end; who has asked often, with nothing queued in between, has waited.
  bool is_over(const Moment& moment);
  Moment end_of(StreamClock& stream);
  Moment end_of_device(int device);
  void hold_host(const Moment& moment);
  void host_works(double seconds);
  double host_now();

  void add_tokens(double tokens);
  // A training step ends with all that has been queued.
  void end_step();
  std::vector<Step> steps();
  // All that happened since the last step's end, and since the beginning.
  Step unfinished();
  Step total();
  // Devices that have computed something; at least 1.
  int devices_at_work();
  // Those of the last two whole steps, where they are kept.
  std::vector<Span> spans();

 private:
  double begin_of(StreamClock& stream);
  double in_step(double begin, double end) const;
  void occupy(StreamClock& stream, Activity activity, double begin, double end, const char* name);
  void note(const Span& span);
  double end_of_all() const;
  Step since(double time, const std::vector<StreamUse>& uses, const MachineUse& machine) const;

  DeviceSpeed speed_;
  bool keeps_spans_;
  std::mutex mutex_;
  double host_ = 0;
  int polls_ = 0;                                      // questions since something was queued last
  std::vector<std::unique_ptr<StreamClock>> streams_;  // the first ones are the default streams
  std::vector<Link> links_;
  std::vector<BusyFabric> fabrics_;  // of each device
  MachineUse machine_;
  double step_begin_ = 0;
  std::vector<StreamUse> step_uses_;  // as they were at step_begin_
  MachineUse step_machine_;
  std::vector<Step> steps_;
  std::deque<Span> spans_;
  std::array<double, 2> span_horizon_{};  // ends of the last two steps
};

}  // namespace ebbtide::dryrun
