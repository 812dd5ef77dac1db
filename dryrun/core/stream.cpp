#include "dryrun/core/stream.h"

#include "dryrun/core/operator_context.h"
#include "dryrun/core/simulator.h"
#include "dryrun/core/stream_clock.h"

namespace ebbtide::dryrun {

namespace {

Deed (*launch_watch)() = nullptr;

// The host's part in a call that belongs to no operator.
void count_host() {
  Timeline& timeline = Simulator::instance().timeline();
  if (operator_context().name == nullptr) timeline.host_works(timeline.speed().operator_seconds);
}

// A kernel is given to a stream: that is when the picture looks at memory.
void note_memory(const StreamClock& clock) {
  Simulator& simulator = Simulator::instance();
  if (simulator.settings().timeline_path.empty()) return;
  simulator.memory_curve().add({clock.device, clock.now, live_bytes(clock.device),
                                simulator.use(clock.device).used.value,
                                simulator.pinned().value});
}

// Nothing is charged: the device is absent, or kernels are to do nothing and no more.
bool is_free(const Simulator& simulator) {
  return simulator.device_count() == 0 || simulator.settings().is_bare;
}

const char* running_name() {
  const char* name = operator_context().name;
  return name == nullptr ? "" : name;
}

}  // namespace

StreamClock& clock_of(const void* stream) {
  if (is_stream_object(stream)) return *static_cast<const Stream*>(stream)->clock;
  return Simulator::instance().timeline().default_stream(current_device());
}

void set_launch_watch(Deed (*make)()) { launch_watch = make; }

void note_launch(const void* stream) {
  Simulator& simulator = Simulator::instance();
  StreamClock& clock = clock_of(stream);
  OperatorContext& context = operator_context();
  const bool is_in_operator = context.name != nullptr && !is_free(simulator);
  if (is_in_operator) {
    ++context.launches;
    context.stream = &clock;
  } else if (!is_free(simulator)) {
    count_host();
  }
  const Deed tell = is_in_operator || launch_watch == nullptr ? Deed() : launch_watch();
  const Deed launch = [&simulator, is_in_operator, tell](StreamClock& on) {
    ++simulator.counters().kernel_launches;
    if (is_free(simulator)) return;
    if (tell) tell(on);
    note_memory(on);
    if (!is_in_operator) simulator.timeline().run(on, {.activity = Activity::kUnknown}, false, "");
  };
  if (!Captures::instance().add(clock, launch)) launch(clock);
}

void note_work(const void* stream, const Work& work) {
  Simulator& simulator = Simulator::instance();
  if (is_free(simulator)) return;
  count_host();
  // A graph's part belongs to the pass in which it is launched, which its operator tells then.
  const Deed run = [&simulator, work, name = running_name()](StreamClock& on) {
    note_memory(on);
    simulator.timeline().run(on, work, operator_context().is_in_backward, name);
  };
  StreamClock& clock = clock_of(stream);
  if (!Captures::instance().add(clock, run)) run(clock);
}

namespace {

// What a copy takes.
void charge_copy(StreamClock& clock, const void* target, const void* source, std::size_t size, bool blocks) {
  Simulator& simulator = Simulator::instance();
  if (is_free(simulator) || size == 0) return;
  Timeline& timeline = simulator.timeline();
  const bool to_device = simulator.facts(target).kind == MemoryKind::kDevice;
  const bool from_device = simulator.facts(source).kind == MemoryKind::kDevice;
  const auto bytes = static_cast<double>(size);
  if (to_device && from_device) {
    timeline.run(clock, {.bytes = 2 * bytes}, false, running_name());
    return;
  }
  if (!to_device && !from_device) return;
  // A copy of memory that is not pinned is staged by the host, which waits for it.
  const bool is_pinned = simulator.facts(to_device ? source : target).kind == MemoryKind::kPinned;
  timeline.copy(clock, to_device ? Direction::kIn : Direction::kOut, bytes, is_pinned,
                blocks || !is_pinned);
}

// Written down where the stream captures, otherwise done; either way the host has had its part.
void queue(const void* stream, std::size_t size, const Deed& deed) {
  if (!is_free(Simulator::instance()) && size > 0) count_host();
  StreamClock& clock = clock_of(stream);
  if (!Captures::instance().add(clock, deed)) deed(clock);
}

}  // namespace

void queue_copy(const void* stream, void* target, const void* source, std::size_t size, bool blocks) {
  queue(stream, size, [=](StreamClock& on) {
    charge_copy(on, target, source, size, blocks);
    Simulator::instance().copy(target, source, size);
  });
}

void queue_copy(const void* stream, const RowCopy& rows) {
  const std::size_t size = rows.width * rows.height;
  queue(stream, size, [=](StreamClock& on) {
    charge_copy(on, rows.target, rows.source, size, false);
    for (std::size_t row = 0; row < rows.height; ++row) {
      Simulator::instance().copy(static_cast<char*>(rows.target) + row * rows.target_pitch,
                                 static_cast<const char*>(rows.source) + row * rows.source_pitch, rows.width);
    }
  });
}

void queue_fill(const void* stream, void* target, int value, std::size_t size) {
  queue(stream, size, [=](StreamClock& on) {
    Simulator& simulator = Simulator::instance();
    if (!is_free(simulator) && size > 0) {
      simulator.timeline().run(on, {.bytes = static_cast<double>(size)}, false, running_name());
    }
    simulator.fill(target, value, size);
  });
}

}  // namespace ebbtide::dryrun
