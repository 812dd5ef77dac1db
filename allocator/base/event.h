// The one record that every observation becomes: fixed size, trivially copyable, written to traces as is.
#pragma once

#include <cstdint>
#include <type_traits>

namespace ebbtide {

// What happened. The numbers are part of the trace format: append, never renumber.
enum class Action : std::uint8_t {
  kAllocate = 1,      // bytes as requested; placement says who served it
  kFree = 2,          // bytes as requested at allocation
  kRecordStream = 3,  // the block is used on `stream` as well
  kMark = 4,          // detail = MarkKind: a hint where a round may begin
  kRound = 5,         // a round ends here; detail = 1 if it followed a program; bytes = round number
  kPlan = 6,          // a new plan is in force; bytes = its height
  kArenaGrow = 7,     // bytes = what the arena holds now
  kArenaTrim = 8,     // bytes = what the arena holds now
  kUpstreamTrim = 9,  // cached memory upstream was given back before the arena grew; bytes = how much
  kReserved = 10,     // bytes = everything held from the device (arena and upstream) at this moment
  kSegmentTaken = 11,     // upstream took `bytes` at `address` from the device; detail = 1: mapped behind another
  kSegmentGivenBack = 12, // upstream gave `bytes` at `address` back
  kUpstreamAllocate = 13, // upstream handed out a block, whoever asked; kAllocate follows where an engine did
  kUpstreamFree = 14,     // such a block was freed
  kDeviceUsed = 15,       // bytes = what the device counts as used, whoever took it; address = its capacity
  kOutOfMemory = 16,      // bytes were asked for in vain; address = what the device had free
  kName = 17,             // a name's next `detail` bytes of text lie in address, bytes, stream; thread = its number
  kOwner = 18,            // from here on this thread allocates for the name of number `bytes`; 0: for nobody
  // What CUPTI tells, late and in no order: time_ns is when it happened, stream is CUPTI's number of it.
  kKernel = 19,           // a kernel ran for `bytes` nanoseconds; address = its name's number
  kCopy = 20,             // `bytes` were copied in `address` nanoseconds; detail = CUPTI's kind of copy
  kMemset = 21,           // `bytes` were set in `address` nanoseconds
  kCudaAllocate = 22,     // somebody took `bytes` at `address` from CUDA; detail = CUPTI's kind of memory, stream = the
                          // number of the name of the library that asked
  kCudaFree = 23,         // that memory was given back; bytes may be 0
  kActivityCount = 24,    // of such records, bytes = lost so far, address = written so far; the first says that they begin
  // What a swap does, in the order in which it was queued; address = the ticket.
  kSwapOut = 25,          // `bytes` leave for the host, to `stream` bytes behind the begin of the pinned memory
  kSwapIn = 26,           // `bytes` of it come back
  kSwapRelease = 27,      // its `bytes` of host memory are free
  kSwapCopied = 28,       // its copies ended: time_ns = their begin by the device's clock, bytes = their nanoseconds,
                          // stream = how long the compute stream stood still for them; detail = 1: to the device
  kPinned = 29,           // `bytes` of host memory are pinned for swaps from here on
  kDecision = 30,         // of the layer whose name has number `address`, `bytes` were dealt with so; detail = Decision
  kFrame = 31,            // stack number `thread` is the frame whose text has number `address`, called from stack `bytes`
                          // (0: from nowhere)
  kStack = 32,            // from here on this thread allocates from stack number `bytes`; 0: from an unknown one
};

// What became of tensors that a layer's backward needs.
enum class Decision : std::uint8_t { kKept = 0, kSwapped = 1, kRecomputed = 2 };

// Whether it is an event of the allocators' own order; the others stand in a trace beside that order.
constexpr bool is_memory_event(Action action) { return action < Action::kKernel || action > Action::kStack; }

enum class MarkKind : std::uint8_t {
  kUser = 0,         // ebbtide.step() / ebbtide_step()
  kForward = 1,      // a root module's forward begins, gradients enabled
  kInference = 2,    // a root module's forward begins, gradients disabled
  kOptimizer = 3,    // an optimizer's step begins
  kOptimizerEnd = 4, // an optimizer's step has ended
};

// Who served an allocation (and so, who gets the free).
enum class Placement : std::uint8_t {
  kUpstream = 0,  // the native allocator, because Ebbtide did not want it (small, other stream, not serving)
  kPlanned = 1,   // the arena, at the offset the plan gives
  kGap = 2,       // the arena, at a free place that the plan leaves
  kDiverged = 3,  // upstream, although a plan was being followed
};

// Bits of the detail of kAllocate and kUpstreamAllocate.
inline constexpr std::uint8_t kInBackward = 1;  // made inside autograd's backward

// The device of events that are of none: kName, kOwner, kFrame, kStack.
inline constexpr std::int8_t kNoDevice = -128;

struct EventRecord {
  std::uint64_t tick = 0;       // index in the order of events of this process
  std::uint64_t time_ns = 0;    // steady clock; 0 when not taken
  std::uint64_t address = 0;    // 0 for events without one
  std::int64_t bytes = 0;
  std::uint64_t stream = 0;     // the stream's handle; 0 is the default stream
  std::uint32_t thread = 0;     // a small number per thread, in order of first appearance
  Action action = Action::kAllocate;
  Placement placement = Placement::kUpstream;
  std::uint8_t detail = 0;
  std::int8_t device = 0;       // device index; -1 is host memory (the CPU adaptor)
};
static_assert(std::is_trivially_copyable_v<EventRecord>);
static_assert(sizeof(EventRecord) == 48);

// Where events go. Implementations must be thread-safe, must not allocate from the allocator under
// observation and must not throw.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void record(const EventRecord& event) noexcept = 0;
};

}  // namespace ebbtide
