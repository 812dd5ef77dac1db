"""The planner by itself: problems read from files, planned and checked through the C interface."""

from __future__ import annotations

import ctypes as c
import dataclasses
import functools
import gzip
import io
import os
import pathlib
import sys
import threading
import zlib
from collections.abc import Callable

from . import _abi, _native
from ._errors import EbbtideError, one_line

STDIN = "-"
_GZIP_MAGIC = b"\x1f\x8b"
# Snapshots shrink to a twentieth; a small file must not fill the memory.
_MOST_UNPACKED = 16 << 20
_MOST_GROWTH = 64


class Infeasible(EbbtideError):
    """No plan exists, or the plan at hand breaks a rule; the message says which."""

    exit_code = 1


@dataclasses.dataclass(frozen=True)
class Planned:
    """What planning came to. Sizes in bytes; `status` is feasible, optimal, infeasible or unknown."""

    height: int | None  # of the lowest plan found, whether it fits or not
    lower_bound: int
    seconds: float
    status: str

    @property
    def fits(self) -> bool:
        return self.status in ("feasible", "optimal")

    @property
    def is_lowest(self) -> bool:
        return self.height is not None and self.height == self.lower_bound or self.status == "optimal"

    @property
    def gap(self) -> float | None:
        """Height over lower bound, minus 1."""
        if self.height is None:
            return None
        return self.height / self.lower_bound - 1 if self.lower_bound else 0.0


@dataclasses.dataclass(frozen=True)
class Arena:
    """One memory of a problem: its name ("" where the problem names none) and its plan, if there is one."""

    name: str
    buffers: int
    plan: Planned


@dataclasses.dataclass
class Options:
    """How to plan; see ebbtide_plan_options. `on_progress` is called from another thread."""

    time_limit: float = 10.0
    capacity: int | None = None
    seed: int = 1
    threads: int = 1
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    on_progress: Callable[[Planned], None] = lambda _: None


def read_bytes(path: str) -> bytes:
    """A file, or stdin where it is "-", unpacked if it is gzip. EbbtideError names the file."""
    if not path:
        raise EbbtideError("the name of the problem or plan is empty; give a file, or - for stdin")
    try:
        content = sys.stdin.buffer.read() if path == STDIN else pathlib.Path(path).read_bytes()
    except OSError as error:
        raise EbbtideError(f"{source_name(path)}: {error.strerror or error}") from None
    if not content.startswith(_GZIP_MAGIC):
        return content
    most = _MOST_UNPACKED + _MOST_GROWTH * len(content)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
            whole = unpacked.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise EbbtideError(f"{source_name(path)}: cannot be unpacked: {one_line(error)}") from None
    if len(whole) > most:
        raise EbbtideError(
            f"{source_name(path)}: unpacks to more than {most} bytes; unpack it with gunzip first"
        )
    return whole


def source_name(path: str) -> str:
    return "stdin" if path == STDIN else path


class Problem:
    """A problem in the library. One thread at a time."""

    def __init__(self, content: bytes, source: str, device: int | None = None) -> None:
        self._handle = c.c_void_p()
        self._library = _library()
        _check(
            self._library.ebbtide_problem_read(
                content,
                len(content),
                _encoded(source),
                -1 if device is None else device,
                c.byref(self._handle),
            )
        )

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.ebbtide_problem_free(self._handle)

    def info(self) -> _abi.ProblemInfoStruct:
        info = _abi.ProblemInfoStruct(struct_size=c.sizeof(_abi.ProblemInfoStruct))
        _check(self._library.ebbtide_problem_get_info(self._handle, c.byref(info)))
        return info

    def plan(self, options: Options) -> Planned:
        """The best plan found; `options.stop` ends the search early, from another thread."""
        # Kept in names: the library must not outlive them.
        stop = _abi.PlanStop(lambda _: int(options.stop.is_set()))
        progress = _abi.PlanProgress(lambda best, _: options.on_progress(_planned(best.contents)))
        given = _abi.PlanOptionsStruct(
            c.sizeof(_abi.PlanOptionsStruct),
            options.time_limit,
            -1 if options.capacity is None else options.capacity,
            options.seed,
            options.threads,
            stop,
            progress,
            None,
        )
        result = _abi.PlanResultStruct(struct_size=c.sizeof(_abi.PlanResultStruct))
        _check(
            self._library.ebbtide_problem_plan(self._handle, c.byref(given), c.byref(result))
        )
        return _planned(result)

    def arenas(self) -> list[Arena]:
        """Each memory by itself, in the order in which they come first."""
        arenas = []
        for index in range(self._library.ebbtide_problem_arenas(self._handle)):
            given = _abi.ArenaStruct(struct_size=c.sizeof(_abi.ArenaStruct))
            _check(self._library.ebbtide_problem_get_arena(self._handle, index, c.byref(given)))
            height = given.height_bytes if given.has_plan else None
            status = _abi.PlanState(given.state).name.lower()
            plan = Planned(height, given.lower_bound_bytes, 0.0, status)
            arenas.append(Arena(given.name.decode(errors="replace"), given.buffers, plan))
        return arenas

    def set_capacity(self, arena: str, size: int) -> None:
        """For planning and checking. EbbtideError if there is no such arena."""
        _check(
            self._library.ebbtide_problem_set_capacity(self._handle, arena.encode(), size)
        )

    def csv(self) -> bytes:
        """The problem with the plan's offsets, once there is one."""
        text, size = c.c_char_p(), c.c_size_t()
        _check(self._library.ebbtide_problem_csv(self._handle, c.byref(text), c.byref(size)))
        return c.string_at(text, size.value)

    def check(self, plan: bytes, source: str, capacity: int | None = None) -> int:
        """The plan's height. Infeasible says the first broken rule."""
        height = c.c_int64()
        _check(
            self._library.ebbtide_problem_check(
                self._handle,
                plan,
                len(plan),
                _encoded(source),
                -1 if capacity is None else capacity,
                c.byref(height),
            )
        )
        return height.value


def _planned(result: _abi.PlanResultStruct) -> Planned:
    return Planned(
        height=result.height_bytes if result.has_plan else None,
        lower_bound=result.lower_bound_bytes,
        seconds=result.seconds,
        status=_abi.PlanState(result.state).name.lower(),
    )


def _encoded(source: str) -> bytes:
    return os.fsencode(source).replace(b"\0", b"?")


def _check(status: int) -> None:
    if status in (_abi.Status.INFEASIBLE, _abi.Status.BAD_PLAN):
        raise Infeasible(_native.last_error())
    _native.check(status)


@functools.cache
def _library() -> c.CDLL:
    return _native.part(_abi.PLAN_FUNCTIONS)
