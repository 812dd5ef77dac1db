"""hooks/ebbtide.h in ctypes. tests/python/test_abi.py compares the two line by line."""

from __future__ import annotations

import ctypes as c
import enum


class Status(enum.IntEnum):
    OK = 0
    INVALID_ARGUMENT = 1
    OUT_OF_DEVICE_MEMORY = 2
    OUT_OF_HOST_MEMORY = 3
    INFEASIBLE = 4
    TIMEOUT = 5
    PLAN_MISMATCH = 6
    BAD_PLAN = 7
    BAD_TRACE = 8
    UNSUPPORTED = 9
    SYSTEM = 10


MAX_EXTENTS = 16  # of a mark's input, pieces included


class Mark(enum.IntEnum):
    STEP = 0
    FORWARD = 1
    INFERENCE = 2
    OPTIMIZER = 3
    OPTIMIZER_END = 4


class Mode(enum.IntEnum):
    """What ebbtide_mode() answers."""

    OFF = 0
    OBSERVE = 1
    ON = 2


class Divergence(enum.IntEnum):
    UNEXPECTED = 0
    OUTGROWN = 1
    PLACE_TAKEN = 2
    NO_MEMORY = 3


class PlanState(enum.IntEnum):
    """ebbtide_plan_state."""

    FEASIBLE = 0
    OPTIMAL = 1
    INFEASIBLE = 2
    UNKNOWN = 3


HOST = -1  # the device index that stands for host memory
FIRST_DIVERGENCE_BYTES = 256


class StatsStruct(c.Structure):
    """ebbtide_stats."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("device", c.c_int32),
        ("serving", c.c_int32),
        ("live_bytes", c.c_int64),
        ("peak_live_bytes", c.c_int64),
        ("reserved_bytes", c.c_int64),
        ("peak_reserved_bytes", c.c_int64),
        ("arena_bytes", c.c_int64),
        ("peak_arena_bytes", c.c_int64),
        ("plan_height_bytes", c.c_int64),
        ("plan_lower_bound_bytes", c.c_int64),
        ("allocations", c.c_int64),
        ("planned_allocations", c.c_int64),
        ("gap_allocations", c.c_int64),
        ("diverged_allocations", c.c_int64),
        ("allocated_bytes", c.c_int64),
        ("planned_bytes", c.c_int64),
        ("gap_bytes", c.c_int64),
        ("diverged_bytes", c.c_int64),
        ("settled_allocations", c.c_int64),
        ("settled_planned_allocations", c.c_int64),
        ("settled_allocated_bytes", c.c_int64),
        ("settled_planned_bytes", c.c_int64),
        ("divergences", c.c_int64 * len(Divergence)),
        ("first_divergence", c.c_char * FIRST_DIVERGENCE_BYTES),
        ("rounds", c.c_int64),
        ("planned_rounds", c.c_int64),
        ("programs", c.c_int64),
        ("plans", c.c_int64),
        ("inline_plans", c.c_int64),
        ("planning_ns", c.c_int64),
        ("longest_planning_ns", c.c_int64),
        ("upstream_trims", c.c_int64),
        ("observed_peak_reserved_bytes", c.c_int64),
        ("lost_events", c.c_int64),
    ]


class TraceSummaryStruct(c.Structure):
    """ebbtide_trace_summary."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("device", c.c_int32),
        ("truncated", c.c_int32),
        ("events", c.c_int64),
        ("allocations", c.c_int64),
        ("frees", c.c_int64),
        ("peak_live_bytes", c.c_int64),
        ("live_bytes_at_end", c.c_int64),
        ("peak_reserved_bytes", c.c_int64),
        ("planned_allocations", c.c_int64),
        ("gap_allocations", c.c_int64),
        ("diverged_allocations", c.c_int64),
        ("allocated_bytes", c.c_int64),
        ("planned_bytes", c.c_int64),
        ("gap_bytes", c.c_int64),
        ("diverged_bytes", c.c_int64),
        ("rounds", c.c_int64),
        ("plans", c.c_int64),
        ("plan_height_bytes", c.c_int64),
        ("duration_ns", c.c_int64),
        ("lost_events", c.c_int64),
    ]


class EventStruct(c.Structure):
    """ebbtide_event."""

    _fields_ = [
        ("tick", c.c_uint64),
        ("time_ns", c.c_uint64),
        ("address", c.c_uint64),
        ("bytes", c.c_int64),
        ("stream", c.c_uint64),
        ("thread", c.c_uint32),
        ("action", c.c_uint8),
        ("placement", c.c_uint8),
        ("detail", c.c_uint8),
        ("device", c.c_int8),
    ]


class TraceInfoStruct(c.Structure):
    """ebbtide_trace_info."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("is_complete", c.c_int32),
        ("reserved", c.c_int32),
        ("records", c.c_int64),
        ("lost_events", c.c_int64),
        ("damage", c.c_char * 256),
    ]


class SwapSourceStruct(c.Structure):
    """ebbtide_swap_source."""

    _fields_ = [
        ("address", c.c_uint64),
        ("bytes", c.c_int64),
    ]


class SwapStatsStruct(c.Structure):
    """ebbtide_swap_stats."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("device", c.c_int32),
        ("swapped_out_bytes", c.c_int64),
        ("swapped_in_bytes", c.c_int64),
        ("copies_out", c.c_int64),
        ("copies_in", c.c_int64),
        ("live_bytes", c.c_int64),
        ("peak_live_bytes", c.c_int64),
        ("pinned_bytes", c.c_int64),
        ("pinned_limit_bytes", c.c_int64),
        ("host_budget_bytes", c.c_int64),
        ("pinnings", c.c_int64),
        ("refusals", c.c_int64),
        ("rounds", c.c_int64),
        ("planned_tickets", c.c_int64),
        ("unplanned_tickets", c.c_int64),
        ("plan_height_bytes", c.c_int64),
        ("plan_lower_bound_bytes", c.c_int64),
        ("copying_out_ns", c.c_int64),
        ("copying_in_ns", c.c_int64),
        ("exposed_out_ns", c.c_int64),
        ("exposed_in_ns", c.c_int64),
        ("unmeasured_copies", c.c_int64),
        ("host_waits", c.c_int64),
        ("timed_out_bytes", c.c_int64),
    ]


class PlanResultStruct(c.Structure):
    """ebbtide_plan_result."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("height_bytes", c.c_int64),
        ("lower_bound_bytes", c.c_int64),
        ("seconds", c.c_double),
        ("state", c.c_int32),
        ("has_plan", c.c_int32),
    ]


PlanStop = c.CFUNCTYPE(c.c_int, c.c_void_p)
PlanProgress = c.CFUNCTYPE(None, c.POINTER(PlanResultStruct), c.c_void_p)


class PlanOptionsStruct(c.Structure):
    """ebbtide_plan_options."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("time_limit", c.c_double),
        ("capacity_bytes", c.c_int64),
        ("seed", c.c_uint64),
        ("threads", c.c_int32),
        ("should_stop", PlanStop),
        ("on_progress", PlanProgress),
        ("context", c.c_void_p),
    ]


class ProblemInfoStruct(c.Structure):
    """ebbtide_problem_info."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("buffers", c.c_int64),
        ("lower_bound_bytes", c.c_int64),
        ("device", c.c_int32),
        ("streams", c.c_int32),
    ]


class ArenaStruct(c.Structure):
    """ebbtide_arena."""

    _fields_ = [
        ("struct_size", c.c_size_t),
        ("name", c.c_char_p),
        ("buffers", c.c_int64),
        ("lower_bound_bytes", c.c_int64),
        ("height_bytes", c.c_int64),
        ("state", c.c_int32),
        ("has_plan", c.c_int32),
    ]


# Name: (result, arguments). ebbtide_status and ebbtide_mark_kind are C ints.
FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "ebbtide_version": (c.c_char_p, []),
    "ebbtide_last_error": (c.c_char_p, []),
    "ebbtide_check_settings": (c.c_int, []),
    "ebbtide_mode": (c.c_int, []),
    "ebbtide_mark": (c.c_int, [c.c_int, c.c_uint64]),
    "ebbtide_mark_input": (
        c.c_int,
        [c.c_int, c.c_uint64, c.POINTER(c.c_int64), c.c_size_t],
    ),
    "ebbtide_step": (c.c_int, []),
    "ebbtide_warmup_begin": (c.c_int, []),
    "ebbtide_warmup_end": (c.c_int, []),
    "ebbtide_wait_for_plans": (c.c_int, []),
    "ebbtide_get_stats": (c.c_int, [c.c_int, c.POINTER(StatsStruct)]),
    "ebbtide_get_step_plan": (c.c_int, [c.c_int, c.POINTER(c.c_int64), c.POINTER(c.c_int64)]),
    "ebbtide_devices": (c.c_size_t, [c.POINTER(c.c_int), c.c_size_t]),
    "ebbtide_report": (c.c_size_t, [c.c_char_p, c.c_size_t]),
    "ebbtide_summarize_trace": (c.c_int, [c.c_char_p, c.POINTER(TraceSummaryStruct)]),
    "ebbtide_finish": (c.c_int, []),
}

# The part for reports, declared when it is first used. A trace is an opaque pointer.
TRACE_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "ebbtide_name_owner": (c.c_int, [c.c_char_p, c.POINTER(c.c_uint32)]),
    "ebbtide_set_owner": (c.c_uint32, [c.c_uint32]),
    "ebbtide_trace_layer": (None, [c.c_int, c.c_uint32, c.c_int64, c.c_int64, c.c_int64]),
    "ebbtide_trace_open": (c.c_int, [c.c_char_p, c.POINTER(c.c_void_p)]),
    "ebbtide_trace_next": (c.c_size_t, [c.c_void_p, c.POINTER(c.POINTER(EventStruct))]),
    "ebbtide_trace_get_info": (c.c_int, [c.c_void_p, c.POINTER(TraceInfoStruct)]),
    "ebbtide_trace_close": (None, [c.c_void_p]),
    "ebbtide_check_pickle": (c.c_int, [c.c_char_p, c.c_size_t, c.c_char_p]),
}

# The part for swapping, declared when it is first used.
SWAP_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "ebbtide_swap_open": (c.c_int, [c.c_int, c.c_int64, c.POINTER(c.c_uint64)]),
    "ebbtide_swap_close": (c.c_int, [c.c_uint64]),
    "ebbtide_swap_reserve": (c.c_int, [c.c_uint64, c.c_int64]),
    "ebbtide_swap_room": (c.c_int, [c.c_uint64, c.c_int64, c.POINTER(c.c_int64)]),
    "ebbtide_swap_out": (
        c.c_int,
        [c.c_uint64, c.POINTER(SwapSourceStruct), c.c_size_t, c.c_uint64, c.POINTER(c.c_uint64)],
    ),
    "ebbtide_swap_await_out": (c.c_int, [c.c_uint64, c.c_uint64, c.c_uint64]),
    "ebbtide_swap_await_all_out": (c.c_int, [c.c_uint64, c.POINTER(c.c_uint64), c.c_size_t, c.c_uint64]),
    "ebbtide_swap_in": (
        c.c_int,
        [c.c_uint64, c.c_uint64, c.c_int64, c.c_void_p, c.c_int64, c.c_uint64],
    ),
    "ebbtide_swap_await_in": (c.c_int, [c.c_uint64, c.c_uint64, c.c_uint64]),
    "ebbtide_swap_release": (c.c_int, [c.c_uint64, c.c_uint64]),
    "ebbtide_swap_get_stats": (c.c_int, [c.c_uint64, c.POINTER(SwapStatsStruct)]),
}



# The part for the planner by itself. A problem is an opaque pointer.
PLAN_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "ebbtide_problem_new": (c.c_int, [c.POINTER(c.c_void_p)]),
    "ebbtide_problem_read": (
        c.c_int,
        [c.c_char_p, c.c_size_t, c.c_char_p, c.c_int, c.POINTER(c.c_void_p)],
    ),
    "ebbtide_problem_free": (None, [c.c_void_p]),
    "ebbtide_problem_add": (
        c.c_int,
        [
            c.c_void_p,
            c.c_char_p,
            c.c_int64,
            c.c_int64,
            c.c_int64,
            c.POINTER(c.c_int64),
            c.c_size_t,
        ],
    ),
    "ebbtide_problem_add_to": (
        c.c_int,
        [
            c.c_void_p,
            c.c_char_p,
            c.c_char_p,
            c.c_int64,
            c.c_int64,
            c.c_int64,
            c.POINTER(c.c_int64),
            c.c_size_t,
        ],
    ),
    "ebbtide_problem_arenas": (c.c_size_t, [c.c_void_p]),
    "ebbtide_problem_get_arena": (c.c_int, [c.c_void_p, c.c_size_t, c.POINTER(ArenaStruct)]),
    "ebbtide_problem_set_capacity": (c.c_int, [c.c_void_p, c.c_char_p, c.c_int64]),
    "ebbtide_problem_get_info": (c.c_int, [c.c_void_p, c.POINTER(ProblemInfoStruct)]),
    "ebbtide_problem_plan": (
        c.c_int,
        [c.c_void_p, c.POINTER(PlanOptionsStruct), c.POINTER(PlanResultStruct)],
    ),
    "ebbtide_problem_get_offsets": (c.c_int, [c.c_void_p, c.POINTER(c.c_int64), c.c_size_t]),
    "ebbtide_problem_csv": (
        c.c_int,
        [c.c_void_p, c.POINTER(c.c_char_p), c.POINTER(c.c_size_t)],
    ),
    "ebbtide_problem_check": (
        c.c_int,
        [c.c_void_p, c.c_char_p, c.c_size_t, c.c_char_p, c.c_int64, c.POINTER(c.c_int64)],
    ),
}


def declare(library: c.CDLL, functions: dict[str, tuple[object, list[object]]] = FUNCTIONS) -> c.CDLL:
    """Give the library's functions their signatures. A missing one raises AttributeError."""
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def declare_adaptor(library: c.CDLL, install: str) -> c.CDLL:
    """The same for a torch adaptor, whose `install` function has a name of its own."""
    getattr(library, install).restype = c.c_int
    getattr(library, install).argtypes = []
    return declare_version(library)


def declare_version(library: c.CDLL) -> c.CDLL:
    """What every library says that was built for one torch."""
    library.ebbtide_torch_version.restype = c.c_char_p
    library.ebbtide_torch_version.argtypes = []
    return library
