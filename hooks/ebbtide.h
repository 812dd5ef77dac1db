/* Ebbtide's C interface: everything that Python, C and C++ programs may call.
 *
 * Conventions, for every function here:
 * - Errors: a function that can fail returns ebbtide_status; the reason in words is
 *   ebbtide_last_error(), per thread, valid until the next failing call on that thread.
 * - Strings given to us are UTF-8, zero-terminated, not kept. Strings we return are ours.
 * - No pointer argument may be NULL unless it says so.
 * - Threads: every function may be called from any thread at any time, also before and after the
 *   allocator is installed (then the answer is "nothing happened yet", not an error).
 * - No C++ exception leaves this interface.
 * - A struct that crosses it begins with its own size in bytes, set by the caller.
 */
#ifndef EBBTIDE_EBBTIDE_H_
#define EBBTIDE_EBBTIDE_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define EBBTIDE_API __attribute__((visibility("default")))
#else
#define EBBTIDE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ebbtide_status {
  EBBTIDE_OK = 0,
  EBBTIDE_INVALID_ARGUMENT = 1,
  EBBTIDE_OUT_OF_DEVICE_MEMORY = 2,
  EBBTIDE_OUT_OF_HOST_MEMORY = 3,
  EBBTIDE_INFEASIBLE = 4,
  EBBTIDE_TIMEOUT = 5,
  EBBTIDE_PLAN_MISMATCH = 6,
  EBBTIDE_BAD_PLAN = 7,
  EBBTIDE_BAD_TRACE = 8,
  EBBTIDE_UNSUPPORTED = 9,
  EBBTIDE_SYSTEM = 10
} ebbtide_status;

/* Where an iteration, or a part of one, may begin. Hints: the sequence of allocations decides. */
typedef enum ebbtide_mark_kind {
  EBBTIDE_MARK_STEP = 0,          /* the user says: a new iteration begins here */
  EBBTIDE_MARK_FORWARD = 1,       /* a root module's forward begins, gradients enabled */
  EBBTIDE_MARK_INFERENCE = 2,     /* the same, gradients disabled */
  EBBTIDE_MARK_OPTIMIZER = 3,     /* an optimizer's step begins */
  EBBTIDE_MARK_OPTIMIZER_END = 4  /* an optimizer's step has ended */
} ebbtide_mark_kind;

enum { EBBTIDE_MAX_EXTENTS = 16 };

/* Why an allocation that a plan was meant to serve went elsewhere. */
typedef enum ebbtide_divergence {
  EBBTIDE_DIVERGED_UNEXPECTED = 0,  /* the plan expects no such allocation here */
  EBBTIDE_DIVERGED_OUTGROWN = 1,    /* larger than the planned place */
  EBBTIDE_DIVERGED_PLACE_TAKEN = 2, /* a tensor that should be gone still holds the place */
  EBBTIDE_DIVERGED_NO_MEMORY = 3,   /* the arena could not grow to the planned place */
  EBBTIDE_DIVERGENCE_COUNT = 4
} ebbtide_divergence;

typedef struct ebbtide_stats {
  size_t struct_size;              /* sizeof(ebbtide_stats), set by the caller */
  int32_t device;                  /* device index; -1 is host memory */
  int32_t serving;                 /* 1 while a plan is in force */
  /* Bytes now and at their highest. Live counts requested bytes through the adaptor; reserved is what
   * is held from the device: the arena and the upstream allocator's segments. */
  int64_t live_bytes, peak_live_bytes;
  int64_t reserved_bytes, peak_reserved_bytes;
  int64_t arena_bytes, peak_arena_bytes;
  int64_t plan_height_bytes;       /* height of the plan in force */
  int64_t plan_lower_bound_bytes;  /* largest sum of live bytes in it: no plan can be lower */
  /* Allocations through the adaptor since the start, by who served them; bytes are requested bytes. */
  int64_t allocations, planned_allocations, gap_allocations, diverged_allocations;
  int64_t allocated_bytes, planned_bytes, gap_bytes, diverged_bytes;
  /* The same, counted only in rounds after the first plan came into force. */
  int64_t settled_allocations, settled_planned_allocations;
  int64_t settled_allocated_bytes, settled_planned_bytes;
  int64_t divergences[EBBTIDE_DIVERGENCE_COUNT];
  char first_divergence[256];      /* in words; empty when there was none */
  int64_t rounds, planned_rounds;  /* rounds seen; rounds that followed a program to their end */
  int64_t programs, plans;         /* programs known; plans made */
  int64_t inline_plans;            /* plans made on the training thread, for an input that outgrew all before */
  int64_t planning_ns, longest_planning_ns; /* all planning; the longest single plan */
  int64_t upstream_trims;          /* times that cached upstream memory was given back for the arena */
  int64_t observed_peak_reserved_bytes; /* upstream's own peak while only observing */
  int64_t lost_events;             /* trace events dropped because the buffer was full */
} ebbtide_stats;

/* What `ebbtide report` prints of a trace file. */
typedef struct ebbtide_trace_summary {
  size_t struct_size;
  int32_t device;                  /* device of the summarised events (the one with most bytes) */
  int32_t truncated;               /* 1: the file ends early; all is reported up to the cut */
  int64_t events, allocations, frees;
  int64_t peak_live_bytes, live_bytes_at_end;
  int64_t peak_reserved_bytes;
  int64_t planned_allocations, gap_allocations, diverged_allocations;
  int64_t allocated_bytes, planned_bytes, gap_bytes, diverged_bytes;
  int64_t rounds, plans, plan_height_bytes;
  int64_t duration_ns, lost_events;
} ebbtide_trace_summary;

/* One event of a trace file: EventRecord of allocator/base/event.h, which says what the fields mean. */
typedef struct ebbtide_event {
  uint64_t tick;
  uint64_t time_ns;
  uint64_t address;
  int64_t bytes;
  uint64_t stream;
  uint32_t thread;
  uint8_t action;
  uint8_t placement;
  uint8_t detail;
  int8_t device;
} ebbtide_event;

/* How far a trace has been read. */
typedef struct ebbtide_trace_info {
  size_t struct_size;
  int32_t is_complete;  /* 1: up to its totals */
  int32_t reserved;
  int64_t records;
  int64_t lost_events;
  char damage[256];     /* why it is not complete, in words */
} ebbtide_trace_info;

typedef struct ebbtide_trace ebbtide_trace;

/* Swapping bytes between a device and pinned host memory, see ebbtide_swap_open. A number: never
 * used again, and after ebbtide_swap_close every call with it is EBBTIDE_INVALID_ARGUMENT. */
typedef uint64_t ebbtide_swap;

/* Memory that is to leave the device. */
typedef struct ebbtide_swap_source {
  uint64_t address;
  int64_t bytes;                   /* > 0 */
} ebbtide_swap_source;

typedef struct ebbtide_swap_stats {
  size_t struct_size;
  int32_t device;                  /* -1: host tensors */
  /* Copied since the swap was opened. */
  int64_t swapped_out_bytes, swapped_in_bytes, copies_out, copies_in;
  /* Host bytes: of tickets, now and at the highest; pinned now, with a spare; that tickets may take,
   * as far as the system grants it; the budget given at the start. */
  int64_t live_bytes, peak_live_bytes;
  int64_t pinned_bytes, pinned_limit_bytes, host_budget_bytes;
  int64_t pinnings;                /* times that memory for tickets was pinned */
  int64_t refusals;                /* swap-outs that found no host memory */
  /* A round lasts from one moment without a ticket to the next. */
  int64_t rounds, planned_tickets, unplanned_tickets;
  int64_t plan_height_bytes, plan_lower_bound_bytes;
  /* On the device's clock: copies under way, and of that what the compute stream stood still for
   * (not hidden), as far as copies are done. */
  int64_t copying_out_ns, copying_in_ns, exposed_out_ns, exposed_in_ns;
  int64_t unmeasured_copies;       /* copies not timed, because too many were under way */
  int64_t host_waits;              /* after errors and at the end only */
  int64_t timed_out_bytes;         /* of the copies whose time is in copying_out_ns */
} ebbtide_swap_stats;

/* Buffers with sizes and lifetimes, and once planned, their offsets: the planner by itself, see
 * ebbtide_problem_read. Calls for one problem come from one thread at a time. */
typedef struct ebbtide_problem ebbtide_problem;

typedef enum ebbtide_plan_state {
  EBBTIDE_PLAN_FEASIBLE = 0,       /* a plan, which fits the capacity if there is one */
  EBBTIDE_PLAN_OPTIMAL = 1,        /* the same, and no plan can be lower */
  EBBTIDE_PLAN_INFEASIBLE = 2,     /* proved: no plan fits the capacity */
  EBBTIDE_PLAN_UNKNOWN = 3         /* neither a plan that fits nor a proof was found in time */
} ebbtide_plan_state;

typedef struct ebbtide_plan_result {
  size_t struct_size;
  int64_t height_bytes;            /* of the lowest plan found, also where it does not fit; the sum of arenas */
  int64_t lower_bound_bytes;       /* no plan is lower; the sum of arenas */
  double seconds;                  /* spent on planning */
  int32_t state;                   /* an ebbtide_plan_state */
  int32_t has_plan;                /* 0: no plan was found, and height_bytes means nothing */
} ebbtide_plan_result;

/* Called while ebbtide_problem_plan runs, perhaps on threads of its own, one call at a time. */
typedef int (*ebbtide_plan_stop)(void* context);  /* not 0: end now with the best plan so far */
typedef void (*ebbtide_plan_progress)(const ebbtide_plan_result* best, void* context);

typedef struct ebbtide_plan_options {
  size_t struct_size;
  double time_limit;               /* seconds, >= 0 */
  int64_t capacity_bytes;          /* does it fit? -1: as low as possible, or ebbtide_problem_set_capacity */
  uint64_t seed;                   /* the same problem and seed: the same plan, given time enough */
  int32_t threads;                 /* >= 1 */
  ebbtide_plan_stop should_stop;   /* may be NULL; asked every few milliseconds */
  ebbtide_plan_progress on_progress; /* may be NULL */
  void* context;                   /* given to both; may be NULL */
} ebbtide_plan_options;

typedef struct ebbtide_problem_info {
  size_t struct_size;
  int64_t buffers;
  int64_t lower_bound_bytes;       /* the largest sum of live bytes; the sum of arenas */
  int32_t device;                  /* of a snapshot; else -1 */
  int32_t streams;                 /* of how many streams a snapshot's allocations are; else 0 */
} ebbtide_problem_info;

/* One memory of a problem, such as a device's or the host's: planned by itself. */
typedef struct ebbtide_arena {
  size_t struct_size;
  const char* name;                /* "" where the problem names none; valid as long as the problem */
  int64_t buffers;
  int64_t lower_bound_bytes;       /* its largest sum of live bytes, or what the plan's search proved */
  int64_t height_bytes;            /* of the plan; means nothing without one */
  int32_t state;                   /* an ebbtide_plan_state; of a checked plan EBBTIDE_PLAN_FEASIBLE */
  int32_t has_plan;
} ebbtide_arena;

/* "0.1.0". */
EBBTIDE_API const char* ebbtide_version(void);
/* The last error of this thread in words; "" when there was none. */
EBBTIDE_API const char* ebbtide_last_error(void);

/* Settings as read from the environment (EBBTIDE, EBBTIDE_TRACE, ...), once, at the first call.
 * Returns EBBTIDE_INVALID_ARGUMENT with the variable, its value and what is allowed in last_error. */
EBBTIDE_API ebbtide_status ebbtide_check_settings(void);
/* 0: off. 1: record and report only (EBBTIDE=observe). 2: on (EBBTIDE=1). Wrong settings are 0. */
EBBTIDE_API int ebbtide_mode(void);

/* Marks where an iteration or a part of one begins. `source` tells apart modules or optimizers
 * (an address or any other number below 2^48; 0 if there is only one). The 16 bits above say which form
 * of its program the round is, where something decides that beforehand, such as the number of pieces that an
 * input is cut into: rounds of different forms are different programs. Cheap; never waits. */
EBBTIDE_API ebbtide_status ebbtide_mark(ebbtide_mark_kind kind, uint64_t source);
/* The same, with the extents of the input: the shapes of the tensors that the round is about, one after the
 * other (batch, length, ...; always as many for one program; up to EBBTIDE_MAX_EXTENTS, more are left out;
 * each below 2^50). Sizes of tensors follow from them, so a plan for a new shape is made before its first allocation. Where the input is
 * run in pieces: behind the shapes, the tokens (batch x length) of each kind of piece, negative. Tensors that have p of
 * something where others have the first two extents then follow from -p. */
EBBTIDE_API ebbtide_status ebbtide_mark_input(ebbtide_mark_kind kind, uint64_t source, const int64_t* extents,
                                              size_t count);
/* ebbtide_mark(EBBTIDE_MARK_STEP, 0). */
EBBTIDE_API ebbtide_status ebbtide_step(void);
/* Between the two calls is exactly one iteration: it is observed, and when end returns, it is planned. */
EBBTIDE_API ebbtide_status ebbtide_warmup_begin(void);
EBBTIDE_API ebbtide_status ebbtide_warmup_end(void);
/* Waits until the plans being made in the background are in force. For tests and warm-up only. */
EBBTIDE_API ebbtide_status ebbtide_wait_for_plans(void);

/* Fills `stats` for a device (-1: host memory). EBBTIDE_UNSUPPORTED when no adaptor serves it. */
EBBTIDE_API ebbtide_status ebbtide_get_stats(int device, ebbtide_stats* stats);
/* What the planner says of training as it goes at present: the height of the last training round's plan, of all that the
 * arena holds in it, and the most that the device could give the arena at this moment. Height 0: that round had no plan.
 * A height above the budget: it had one, which the device cannot hold. EBBTIDE_UNSUPPORTED as above. */
EBBTIDE_API ebbtide_status ebbtide_get_step_plan(int device, int64_t* height_bytes, int64_t* budget_bytes);
/* The devices that an adaptor serves, at most `capacity` of them; returns how many there are. */
EBBTIDE_API size_t ebbtide_devices(int* devices, size_t capacity);
/* The five-line report of all devices. Writes at most `capacity` bytes with the final zero, returns
 * the length it would have without the zero (as snprintf does). `buffer` may be NULL if capacity is 0. */
EBBTIDE_API size_t ebbtide_report(char* buffer, size_t capacity);

/* For traces: gives `text` (a module's path, say) a number, which is 0 while no trace is written. */
EBBTIDE_API ebbtide_status ebbtide_name_owner(const char* text, uint32_t* name);
/* From here on what this thread allocates belongs to the name; 0: to nobody. Returns what it was before. */
EBBTIDE_API uint32_t ebbtide_set_owner(uint32_t name);
/* For traces: of what the layer with this name needs for its backward, so many bytes were kept on the device, swapped to
 * the host, and left to be computed again. Does nothing while no trace is written. */
EBBTIDE_API void ebbtide_trace_layer(int device, uint32_t name, int64_t kept, int64_t swapped, int64_t recomputed);

/* Reads a trace file written through EBBTIDE_TRACE. */
EBBTIDE_API ebbtide_status ebbtide_summarize_trace(const char* path, ebbtide_trace_summary* summary);

/* The same file event by event. A trace that was opened ends with ebbtide_trace_close. One thread at a time. */
EBBTIDE_API ebbtide_status ebbtide_trace_open(const char* path, ebbtide_trace** trace);
/* The next events, valid until the next call; how many: 0 at the end, or where the file is cut or damaged. */
EBBTIDE_API size_t ebbtide_trace_next(ebbtide_trace* trace, const ebbtide_event** events);
EBBTIDE_API ebbtide_status ebbtide_trace_get_info(const ebbtide_trace* trace, ebbtide_trace_info* info);
EBBTIDE_API void ebbtide_trace_close(ebbtide_trace* trace);

/* Whether the bytes are a pickle of plain data (numbers, text, lists, dictionaries) that unpickles in memory
 * of the order of its size: EBBTIDE_INVALID_ARGUMENT with "source: byte N: reason" if not. */
EBBTIDE_API ebbtide_status ebbtide_check_pickle(const char* bytes, size_t size, const char* source);

/* Ends the work: flushes the trace, saves the plan (EBBTIDE_PLAN), prints the report (EBBTIDE_REPORT).
 * Runs at exit by itself; calling it again does nothing. Allocation goes on, unplanned. */
EBBTIDE_API ebbtide_status ebbtide_finish(void);

/* Opens a swap for a device's memory (-1: host tensors; copies run on threads of their own). It
 * holds at most `host_budget` bytes of pinned host memory, taken as needed. EBBTIDE_UNSUPPORTED when
 * there is no such device, or no CUDA runtime in the process.
 *
 * A compute stream below is a cudaStream_t as a number (0: the default stream); for host tensors it
 * is the caller, and to await is to wait. Nothing else waits on the host. The calls for one ticket
 * come in order; calls for different tickets may come from different threads. */
EBBTIDE_API ebbtide_status ebbtide_swap_open(int device, int64_t host_budget, ebbtide_swap* swap);
/* Waits until its copies are through and gives the host memory back. */
EBBTIDE_API ebbtide_status ebbtide_swap_close(ebbtide_swap swap);
/* Pins so many bytes in all, now rather than piece by piece while training.
 * EBBTIDE_OUT_OF_HOST_MEMORY beyond the budget or when the system refuses; what is pinned stays. */
EBBTIDE_API ebbtide_status ebbtide_swap_reserve(ebbtide_swap swap, int64_t bytes);
/* How much of `wanted` bytes one ebbtide_swap_out could take now. */
EBBTIDE_API ebbtide_status ebbtide_swap_room(ebbtide_swap swap, int64_t wanted, int64_t* bytes);
/* Queues copies of `count` (> 0) sources to the host behind the compute stream's work so far, all
 * under one ticket, in which each begins where the one before it ends, rounded up to 512 bytes. They
 * must keep their bytes until ebbtide_swap_await_out was called. EBBTIDE_OUT_OF_HOST_MEMORY beyond
 * the budget. After any failure nothing is in flight and nothing is held. */
EBBTIDE_API ebbtide_status ebbtide_swap_out(ebbtide_swap swap, const ebbtide_swap_source* sources,
                                            size_t count, uint64_t compute_stream,
                                            uint64_t* ticket);
/* Work queued on the compute stream from now on begins when the copies have ended: there, the
 * sources may be freed or overwritten. */
EBBTIDE_API ebbtide_status ebbtide_swap_await_out(ebbtide_swap swap, uint64_t ticket,
                                                  uint64_t compute_stream);
/* The same for `count` tickets, at the price of one. If one of them is not live, nothing is waited for. */
EBBTIDE_API ebbtide_status ebbtide_swap_await_all_out(ebbtide_swap swap, const uint64_t* tickets, size_t count,
                                                      uint64_t compute_stream);
/* Queues a copy of the ticket's bytes [from, from + bytes) to `target`, behind the compute stream's
 * work so far. The target must stay allocated until ebbtide_swap_await_in was called. After a failure
 * the ticket is as it was. */
EBBTIDE_API ebbtide_status ebbtide_swap_in(ebbtide_swap swap, uint64_t ticket, int64_t from,
                                           void* target, int64_t bytes, uint64_t compute_stream);
/* Work queued on the compute stream from now on begins when the ticket's copies in have ended. */
EBBTIDE_API ebbtide_status ebbtide_swap_await_in(ebbtide_swap swap, uint64_t ticket,
                                                 uint64_t compute_stream);
/* Forgets the ticket; its host bytes are free. What was queued for it is still carried out: await it
 * first where its other end is going to be freed. */
EBBTIDE_API ebbtide_status ebbtide_swap_release(ebbtide_swap swap, uint64_t ticket);
/* Waits for nothing: times are of the copies that are done. */
EBBTIDE_API ebbtide_status ebbtide_swap_get_stats(ebbtide_swap swap, ebbtide_swap_stats* stats);

/* An empty problem. Every problem ends with ebbtide_problem_free. */
EBBTIDE_API ebbtide_status ebbtide_problem_new(ebbtide_problem** problem);
/* Reads the bytes of a file: google/minimalloc's CSV, or a PyTorch memory snapshot, of which nothing
 * is executed. `source` is its name in messages; `device` chooses one of a snapshot's, -1 the only one.
 * EBBTIDE_INVALID_ARGUMENT with "source:line:column: reason" or "source: byte N: reason";
 * EBBTIDE_INFEASIBLE when fixed buffers overlap. docs/planner-cli.md has the formats. */
EBBTIDE_API ebbtide_status ebbtide_problem_read(const char* bytes, size_t size, const char* source,
                                                int device, ebbtide_problem** problem);
EBBTIDE_API void ebbtide_problem_free(ebbtide_problem* problem);
/* Adds a buffer of `size` bytes whose offset is a multiple of `alignment`, and is `offset` unless that
 * is negative. It is live in [ticks[0], ticks[1]), [ticks[2], ticks[3]), ... , `lives` intervals in
 * order. A plan made before is gone. */
EBBTIDE_API ebbtide_status ebbtide_problem_add(ebbtide_problem* problem, const char* id,
                                               int64_t size, int64_t alignment, int64_t offset,
                                               const int64_t* ticks, size_t lives);
/* The same in an arena of that name, which is new if no buffer is in it yet: buffers of different
 * arenas share no addresses, and each arena has a height of its own. ebbtide_problem_add's arena is "". */
EBBTIDE_API ebbtide_status ebbtide_problem_add_to(ebbtide_problem* problem, const char* arena,
                                                  const char* id, int64_t size, int64_t alignment,
                                                  int64_t offset, const int64_t* ticks,
                                                  size_t lives);
EBBTIDE_API ebbtide_status ebbtide_problem_get_info(const ebbtide_problem* problem,
                                                    ebbtide_problem_info* info);
/* How many arenas there are, at least one; they are in the order in which they came first. */
EBBTIDE_API size_t ebbtide_problem_arenas(const ebbtide_problem* problem);
EBBTIDE_API ebbtide_status ebbtide_problem_get_arena(const ebbtide_problem* problem, size_t index,
                                                     ebbtide_arena* arena);
/* The bytes that an arena has, for planning and checking; -1: as many as needed. Where there are several
 * arenas it is the only way: ebbtide_plan_options has no capacity then. */
EBBTIDE_API ebbtide_status ebbtide_problem_set_capacity(ebbtide_problem* problem, const char* arena,
                                                        int64_t bytes);
/* Looks for the lowest plan, or for one that fits, until the time limit, a proof or should_stop.
 * Every plan is judged by the validator before it is kept. `options` may be NULL: 10 seconds, one
 * thread. That no plan fits is no error: see ebbtide_plan_result. */
EBBTIDE_API ebbtide_status ebbtide_problem_plan(ebbtide_problem* problem,
                                                const ebbtide_plan_options* options,
                                                ebbtide_plan_result* result);
/* The plan's offsets, at most `capacity` of them, in the order of the buffers.
 * EBBTIDE_INVALID_ARGUMENT when there is no plan. */
EBBTIDE_API ebbtide_status ebbtide_problem_get_offsets(const ebbtide_problem* problem,
                                                       int64_t* offsets, size_t capacity);
/* The problem as CSV, with the plan's offsets if there is one: valid until the next call for it. */
EBBTIDE_API ebbtide_status ebbtide_problem_csv(ebbtide_problem* problem, const char** text,
                                               size_t* size);
/* Judges a plan, the bytes of a CSV with columns id and offset, as ebbtide_problem_csv writes it. At
 * most `capacity` bytes, unless that is -1. EBBTIDE_BAD_PLAN with the first broken rule and the ids of
 * its buffers. On success `height` is where the highest buffer ends, summed up over the arenas, and the
 * plan becomes the problem's. */
EBBTIDE_API ebbtide_status ebbtide_problem_check(ebbtide_problem* problem, const char* bytes,
                                                 size_t size, const char* source, int64_t capacity,
                                                 int64_t* height);

#ifdef __cplusplus
}
#endif

#endif /* EBBTIDE_EBBTIDE_H_ */
