"""Statistics of one device as a Python value."""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from typing import TYPE_CHECKING

from . import _native
from ._abi import HOST, Divergence, StatsStruct, Status

if TYPE_CHECKING:
    from ._offload._offload_stats import AllOffload


@dataclasses.dataclass(frozen=True)
class Stats:
    """One device's numbers (hooks/ebbtide.h, ebbtide_stats, says what each means)."""

    device: int
    serving: bool
    live_bytes: int
    peak_live_bytes: int
    reserved_bytes: int
    peak_reserved_bytes: int
    arena_bytes: int
    peak_arena_bytes: int
    plan_height_bytes: int
    plan_lower_bound_bytes: int
    allocations: int
    planned_allocations: int
    gap_allocations: int
    diverged_allocations: int
    allocated_bytes: int
    planned_bytes: int
    gap_bytes: int
    diverged_bytes: int
    settled_allocations: int
    settled_planned_allocations: int
    settled_allocated_bytes: int
    settled_planned_bytes: int
    divergences: dict[str, int]
    first_divergence: str
    rounds: int
    planned_rounds: int
    programs: int
    plans: int
    inline_plans: int
    planning_ns: int
    longest_planning_ns: int
    upstream_trims: int
    observed_peak_reserved_bytes: int
    lost_events: int
    offload: AllOffload | None  # of all devices; None: nothing was offloaded or tagged

    @property
    def fragmentation(self) -> float:
        """Peak reserved over peak live, minus 1; 0 before anything was allocated."""
        if not self.peak_live_bytes:
            return 0.0
        return self.peak_reserved_bytes / self.peak_live_bytes - 1

    @property
    def settled_planned_share(self) -> float:
        """Share of bytes served from the plan since the first plan came into force; 0 before."""
        if not self.settled_allocated_bytes:
            return 0.0
        return self.settled_planned_bytes / self.settled_allocated_bytes


    def scalars(self) -> dict[str, float]:
        """The numbers worth a curve, for TensorBoard, W&B and the like. Sizes in GiB, shares from 0 to 1."""
        gib = float(1 << 30)
        return {
            "ebbtide/live_gib": self.live_bytes / gib,
            "ebbtide/peak_live_gib": self.peak_live_bytes / gib,
            "ebbtide/reserved_gib": self.reserved_bytes / gib,
            "ebbtide/peak_reserved_gib": self.peak_reserved_bytes / gib,
            "ebbtide/arena_gib": self.arena_bytes / gib,
            "ebbtide/fragmentation": self.fragmentation,
            "ebbtide/planned_share": self.settled_planned_share,
            "ebbtide/divergences": float(sum(self.divergences.values())),
        }


def _from_struct(struct: StatsStruct) -> Stats:
    names = {field.name for field in dataclasses.fields(Stats)} - {"offload"}
    values = {name: getattr(struct, name) for name in names}
    values["serving"] = bool(struct.serving)
    values["divergences"] = {kind.name.lower(): struct.divergences[kind] for kind in Divergence}
    values["first_divergence"] = struct.first_divergence.decode(errors="replace")
    return Stats(**values, offload=read_offload())


def read_offload() -> AllOffload | None:
    """Without importing anything of offload where nothing has asked for it."""
    if "ebbtide._offload._registry" not in sys.modules:
        return None
    from ._offload import _offload_stats

    found = _offload_stats.read()
    return found if found.models or found.tags else None


def without_engine() -> Stats:
    """Stats of a program that offloads, but is not served: everything but `offload` is 0."""
    return _from_struct(StatsStruct(device=HOST))


def device_index(device: object) -> int:
    """-1 for host memory. Takes what torch takes: an index, "cpu", "cuda:1", a torch.device."""
    if isinstance(device, int):
        return device
    name, _, index = str(device).partition(":")
    if name == "cpu":
        return HOST
    if name == "cuda" and (index.isdigit() or not index):
        return int(index or 0)
    raise ValueError(f"device {device!r}: allowed are an index, cpu, cuda and cuda:N")


def devices() -> list[int]:
    """The devices that an adaptor serves; -1 is host memory."""
    library = _native.library()
    count = library.ebbtide_devices(ctypes.POINTER(ctypes.c_int)(), 0)
    room = (ctypes.c_int * max(count, 1))()
    return list(room[: min(library.ebbtide_devices(room, count), count)])


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What the address planner says of the last training round: its height with all that the arena holds in it
    (0: that round had no plan), and the most that the device could give the arena now."""

    height_bytes: int
    budget_bytes: int

    @property
    def fits(self) -> bool:
        return self.height_bytes <= self.budget_bytes


def step_plan(device: int) -> StepPlan | None:
    """None: nothing plans addresses on this device (-1: host memory)."""
    height, budget = ctypes.c_int64(), ctypes.c_int64()
    status = _native.library().ebbtide_get_step_plan(device, ctypes.byref(height), ctypes.byref(budget))
    if status == Status.UNSUPPORTED:
        return None
    _native.check(status)
    return StepPlan(height.value, budget.value)


def read(device: int) -> Stats:
    struct = StatsStruct(struct_size=ctypes.sizeof(StatsStruct))
    _native.check(_native.library().ebbtide_get_stats(device, ctypes.byref(struct)))
    return _from_struct(struct)
