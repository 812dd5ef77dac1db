#include "dryrun/core/timeline.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "dryrun/core/stream_clock.h"

namespace ebbtide::dryrun {

namespace {

constexpr double kPollSeconds = 1e-6;
constexpr int kMostPolls = 10000;
// Stretches of one kind that are as close as this are drawn as one.
constexpr double kSpanGap = 5e-6;

double computing_seconds(const StreamUse& use) {
  double seconds = 0;
  for (std::size_t i = 0; i < use.busy.size(); ++i) {
    const auto activity = static_cast<Activity>(i);
    const bool is_computing = activity != Activity::kCopyOut && activity != Activity::kCopyIn &&
                              activity != Activity::kCollective;
    if (is_computing) seconds += use.busy[i];
  }
  return seconds;
}

StreamUse difference(const StreamUse& later, const StreamUse& earlier) {
  StreamUse use = later;
  for (std::size_t i = 0; i < use.busy.size(); ++i) {
    use.busy[i] -= earlier.busy[i];
    use.stalled[i] -= earlier.stalled[i];
  }
  use.starved -= earlier.starved;
  return use;
}

constexpr double MachineUse::*kSums[] = {&MachineUse::forward_flops,
                                         &MachineUse::flops,
                                         &MachineUse::forward_peak_seconds,
                                         &MachineUse::peak_seconds,
                                         &MachineUse::out_bytes,
                                         &MachineUse::in_bytes,
                                         &MachineUse::tokens,
                                         &MachineUse::launches,
                                         &MachineUse::unknown_launches,
                                         &MachineUse::collectives,
                                         &MachineUse::collective_seconds,
                                         &MachineUse::collective_bytes};

}  // namespace

MachineUse& MachineUse::operator+=(const MachineUse& other) {
  for (const auto sum : kSums) this->*sum += other.*sum;
  return *this;
}

MachineUse& MachineUse::operator-=(const MachineUse& other) {
  for (const auto sum : kSums) this->*sum -= other.*sum;
  return *this;
}

Timeline::Timeline(const DeviceSpeed& speed, int devices, int ranks, bool keeps_spans)
    : speed_(speed), keeps_spans_(keeps_spans) {
  for (int device = 0; device < devices; ++device) add_stream(device, false);
  fabrics_.resize(static_cast<std::size_t>(devices));
  // Devices of this process share links among themselves, in order; those of others all the time.
  const int sharers = std::min(ranks, speed.devices_per_link);
  for (int first = 0; first < devices; first += speed.devices_per_link) {
    links_.emplace_back(speed, sharers);
  }
}

Timeline::~Timeline() = default;

StreamClock& Timeline::add_stream(int device, bool waits_for_default) {
  const std::lock_guard lock(mutex_);
  const auto index = static_cast<int>(streams_.size());
  streams_.push_back(std::make_unique<StreamClock>(index, device, waits_for_default));
  StreamClock& stream = *streams_.back();
  stream.now = host_;  // it has no past to be idle in
  return stream;
}

// When the next work of a stream begins; what was waited for until then is accounted for.
double Timeline::begin_of(StreamClock& stream) {
  host_ = std::max(host_, stream.oldest_end());
  double begin = std::max({stream.now, stream.awaited.time, host_});
  const StreamClock& first = default_stream(stream.device);
  if (stream.waits_for_default) begin = std::max(begin, first.now);
  if (&stream == &first) {
    for (const auto& other : streams_) {
      if (other->waits_for_default && other->device == stream.device)
        begin = std::max(begin, other->now);
    }
  }
  // Had the host come later than what was waited for, that was no wait.
  const double unstalled = std::max(stream.now, host_);
  const double stalled = std::max(0.0, begin - unstalled);
  stream.use.stalled[static_cast<std::size_t>(stream.awaited.cause)] += in_step(begin - stalled, begin);
  stream.use.starved += in_step(stream.now, unstalled);
  if (stalled > 0) note({stream.index, stream.awaited.cause, true, unstalled, begin, ""});
  return begin;
}

// A stream that had less to do may begin a step's work while another still has the last step's: that part is no
// share of this step's time.
double Timeline::in_step(double begin, double end) const {
  return std::max(0.0, end - std::max(begin, step_begin_));
}

void Timeline::occupy(StreamClock& stream, Activity activity, double begin, double end,
                      const char* name) {
  stream.use.busy[static_cast<std::size_t>(activity)] += in_step(begin, end);
  stream.now = end;
  stream.last = activity;
  polls_ = 0;
  stream.queue(end);
  note({stream.index, activity, false, begin, end, name});
}

void Timeline::note(const Span& span) {
  if (!keeps_spans_) return;
  // The latest span of this stream is among the last few.
  const std::size_t reach = std::min<std::size_t>(spans_.size(), 8);
  for (std::size_t back = 1; back <= reach; ++back) {
    Span& last = spans_[spans_.size() - back];
    if (last.stream != span.stream) continue;
    const bool is_same = last.activity == span.activity && last.is_stall == span.is_stall &&
                         std::strcmp(last.name, span.name) == 0;
    if (!is_same || span.begin - last.end > kSpanGap) break;
    last.end = span.end;
    return;
  }
  spans_.push_back(span);
}

void Timeline::run(StreamClock& stream, const Work& work, bool is_in_backward, const char* name) {
  const double seconds = seconds_of(work, speed_);
  const std::lock_guard lock(mutex_);
  const double begin = begin_of(stream);
  // What is bound by memory needs no more than the multiprocessors that are left.
  const bool fills_device =
      work.activity == Activity::kMatrix || work.activity == Activity::kAttention;
  const BusyFabric& fabric = fabrics_[static_cast<std::size_t>(stream.device)];
  const double end = fills_device ? fabric.end_of(begin, seconds) : begin + seconds;
  occupy(stream, work.activity, begin, end, name);
  machine_.launches += work.launches;
  if (work.activity == Activity::kUnknown) machine_.unknown_launches += work.launches;
  const double at_peak = work.flops / speed_.peak_flops[static_cast<std::size_t>(work.numbers)];
  machine_.flops += work.flops;
  machine_.peak_seconds += at_peak;
  if (is_in_backward) return;
  machine_.forward_flops += work.flops;
  machine_.forward_peak_seconds += at_peak;
}

void Timeline::copy(StreamClock& stream, Direction direction, double bytes, bool is_pinned,
                    bool blocks) {
  const std::lock_guard lock(mutex_);
  Link& link = links_[static_cast<std::size_t>(stream.device / speed_.devices_per_link)];
  const double ready = begin_of(stream);
  const Interval carried = link.carry(direction, bytes, ready, is_pinned);
  const bool is_out = direction == Direction::kOut;
  const Activity activity = is_out ? Activity::kCopyOut : Activity::kCopyIn;
  stream.use.stalled[static_cast<std::size_t>(activity)] += in_step(ready, carried.begin);
  occupy(stream, activity, carried.begin, carried.end, "");
  (is_out ? machine_.out_bytes : machine_.in_bytes) += bytes;
  if (blocks) host_ = std::max(host_, carried.end);
}

void Timeline::communicate(StreamClock& stream, const CollectiveCost& cost, const char* name) {
  const std::lock_guard lock(mutex_);
  BusyFabric& fabric = fabrics_[static_cast<std::size_t>(stream.device)];
  double& is_free = fabric.free_from(cost.fabric);
  const double ready = begin_of(stream);
  const double begin = std::max(ready, is_free);
  if (begin > ready) {
    stream.use.stalled[static_cast<std::size_t>(Activity::kCollective)] += in_step(ready, begin);
    note({stream.index, Activity::kCollective, true, ready, begin, ""});
  }
  is_free = begin + cost.transfer;
  const double seconds = cost.latency + cost.transfer;
  const double channels =
      cost.fabric == Fabric::kPeers ? speed_.peer_channels : speed_.network_channels;
  if (speed_.multiprocessors > channels) {
    fabric.take(begin, begin + seconds, channels / speed_.multiprocessors);
  }
  occupy(stream, Activity::kCollective, begin, begin + seconds, name);
  machine_.collectives += 1;
  machine_.collective_seconds += seconds;
  machine_.collective_bytes += cost.sent_bytes;
}

Moment Timeline::record(StreamClock& stream) {
  const std::lock_guard lock(mutex_);
  // An event waits for all before it, and happens no earlier than it is asked for.
  return {std::max({stream.now, stream.awaited.time, host_}), stream.last};
}

void Timeline::wait(StreamClock& stream, const Moment& moment) {
  const std::lock_guard lock(mutex_);
  if (moment.time > stream.awaited.time) stream.awaited = moment;
}

bool Timeline::is_over(const Moment& moment) {
  const std::lock_guard lock(mutex_);
  if (moment.time <= host_) return true;
  host_ += kPollSeconds;
  if (++polls_ > kMostPolls) host_ = moment.time;
  return false;
}

Moment Timeline::end_of(StreamClock& stream) {
  const std::lock_guard lock(mutex_);
  return {std::max(stream.now, stream.awaited.time), stream.last};
}

Moment Timeline::end_of_device(int device) {
  const std::lock_guard lock(mutex_);
  Moment last;
  for (const auto& stream : streams_) {
    if (stream->device == device && stream->now > last.time) last = {stream->now, stream->last};
  }
  return last;
}

void Timeline::hold_host(const Moment& moment) {
  const std::lock_guard lock(mutex_);
  host_ = std::max(host_, moment.time);
}

void Timeline::host_works(double seconds) {
  const std::lock_guard lock(mutex_);
  host_ += seconds;
}

double Timeline::host_now() {
  const std::lock_guard lock(mutex_);
  return host_;
}

void Timeline::add_tokens(double tokens) {
  const std::lock_guard lock(mutex_);
  machine_.tokens += tokens;
}

double Timeline::end_of_all() const {
  double end = host_;
  for (const auto& stream : streams_) end = std::max(end, stream->now);
  return end;
}

Step Timeline::since(double time, const std::vector<StreamUse>& uses,
                     const MachineUse& machine) const {
  Step step;
  step.seconds = end_of_all() - time;
  step.machine = machine_;
  step.machine -= machine;
  double most = -1;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    const StreamUse use = difference(streams_[i]->use, i < uses.size() ? uses[i] : StreamUse{});
    if (computing_seconds(use) <= most) continue;
    most = computing_seconds(use);
    step.use = use;
  }
  return step;
}

void Timeline::end_step() {
  const std::lock_guard lock(mutex_);
  steps_.push_back(since(step_begin_, step_uses_, step_machine_));
  step_begin_ = end_of_all();
  step_machine_ = machine_;
  step_uses_.clear();
  for (const auto& stream : streams_) step_uses_.push_back(stream->use);
  while (!spans_.empty() && spans_.front().end <= span_horizon_[0]) spans_.pop_front();
  span_horizon_ = {span_horizon_[1], step_begin_};
}

std::vector<Step> Timeline::steps() {
  const std::lock_guard lock(mutex_);
  return steps_;
}

Step Timeline::unfinished() {
  const std::lock_guard lock(mutex_);
  return since(step_begin_, step_uses_, step_machine_);
}

Step Timeline::total() {
  const std::lock_guard lock(mutex_);
  return since(0, {}, {});
}

int Timeline::devices_at_work() {
  const std::lock_guard lock(mutex_);
  std::set<int> devices;
  for (const auto& stream : streams_) {
    if (computing_seconds(stream->use) > 0) devices.insert(stream->device);
  }
  return std::max(1, static_cast<int>(devices.size()));
}

std::vector<Span> Timeline::spans() {
  const std::lock_guard lock(mutex_);
  return {spans_.begin(), spans_.end()};
}

}  // namespace ebbtide::dryrun
