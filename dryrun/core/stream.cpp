#include "dryrun/core/stream.h"

#include "dryrun/core/operator_context.h"
#include "dryrun/core/simulator.h"
#include "dryrun/core/stream_clock.h"

namespace ebbtide::dryrun {

namespace {

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

void note_launch(const void* stream) {
  Simulator& simulator = Simulator::instance();
  ++simulator.counters().kernel_launches;
  if (is_free(simulator)) return;
  note_memory(clock_of(stream));
  OperatorContext& context = operator_context();
  if (context.name == nullptr) {
    count_host();
    simulator.timeline().run(clock_of(stream), {.activity = Activity::kUnknown}, false, "");
    return;
  }
  ++context.launches;
  context.stream = &clock_of(stream);
}

void note_work(const void* stream, const Work& work) {
  Simulator& simulator = Simulator::instance();
  if (is_free(simulator)) return;
  note_memory(clock_of(stream));
  count_host();
  simulator.timeline().run(clock_of(stream), work, operator_context().is_in_backward,
                           running_name());
}

void note_copy(const void* stream, const void* target, const void* source, std::size_t size,
               bool blocks) {
  Simulator& simulator = Simulator::instance();
  if (is_free(simulator) || size == 0) return;
  count_host();
  Timeline& timeline = simulator.timeline();
  const bool to_device = simulator.facts(target).kind == MemoryKind::kDevice;
  const bool from_device = simulator.facts(source).kind == MemoryKind::kDevice;
  const auto bytes = static_cast<double>(size);
  StreamClock& clock = clock_of(stream);
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

void note_fill(const void* stream, std::size_t size) {
  Simulator& simulator = Simulator::instance();
  if (is_free(simulator) || size == 0) return;
  count_host();
  simulator.timeline().run(clock_of(stream), {.bytes = static_cast<double>(size)}, false,
                           running_name());
}

}  // namespace ebbtide::dryrun
