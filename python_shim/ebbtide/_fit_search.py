"""Which lengths `ebbtide fit` tries: a parametric prediction, and a bracket around the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ._fit_runs import Run

_MOST_GROWTH = 4  # from a length that ran to the next: budgets and thresholds bend the curve
_CAREFUL_GROWTH = 3  # where two near lengths are all that is known
_SETTLED = 0.03  # a fit and a failure as near as this end the search
_BELOW, _ABOVE = 0.995, 1.005  # of a predicted length: tried together
_APART = 1.06  # lengths that show a slope between them
_FULL = 0.98  # of the host budget: no more is expected to go there
_ROUNDS = 8


class Curve:
    """A figure by length: a quadratic through the longest three where that bends upwards, else a line.

    Memory grows with the length and its square (masks, scores); what bends downwards is a threshold.
    """

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        self._points = sorted(dict(points).items())[-3:]
        if len(self._points) == 3:
            (a, x), (b, y), (c, z) = self._points
            if (z - y) / (c - b) <= (y - x) / (b - a):
                self._points = self._points[1:]

    def __call__(self, length: float) -> float:
        total = 0.0
        for i, (x, y) in enumerate(self._points):
            for j, (other, _) in enumerate(self._points):
                if i != j:
                    y *= (length - other) / (x - other)
            total += y
        return total

    def longest(self, most_bytes: float, most: int) -> int:
        """The largest length up to `most` whose figure is at most `most_bytes`; it is taken to rise."""
        low, high = 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self(middle) <= most_bytes else (low, middle)
        return low


class Need:
    """Device bytes by length, from runs. What host memory has no room for stays on the device.

    `budget`: bytes of host memory, None: no limit.
    """

    def __init__(self, runs: Sequence[Run], budget: int | None, figure: Callable[[Run], int]) -> None:
        ran = [run for run in runs if run.ok]
        free = [run for run in ran if budget is None or run.host < _FULL * budget]
        self._device = Curve([(run.length, figure(run)) for run in free or ran])
        self._full: Curve | None = None
        self._is_guess = False
        if budget is None or not free or not free[-1].host:
            return
        host = Curve([(0, 0), *((run.length, run.host) for run in free)])
        full_from = max(free[-1].length, host.longest(budget, 1 << 40))
        points = [(full_from, self._device(full_from))]
        points += [(run.length, figure(run)) for run in ran if run.length > full_from]
        self._is_guess = len(points) == 1
        if self._is_guess:  # none ran yet: all that would go to the host comes on top
            over = host(2 * full_from) - budget
            points.append((2 * full_from, self._device(2 * full_from) + over))
        self._full_from, self._full = full_from, Curve(points[-2:])

    def is_known_at(self, length: float) -> bool:
        """Not where host memory is full, before a run has shown what the program does then."""
        return not self._is_guess or length <= self._full_from

    def longest(self, capacity: float, most: int) -> int:
        reached = self._device.longest(capacity, most)
        if self._full is None or reached <= self._full_from:
            return reached
        return max(self._full_from, self._full.longest(capacity, most))


class Search:
    """The longest length that fits one device under one setting; `propose` and `tell` in turns.

    `measured`: runs without a limit. Lengths are multiples of `step`, at most `most`.
    """

    def __init__(
        self,
        measured: Sequence[Run],
        capacity: int,
        budget: int | None,
        most: int,
        step: int,
        compacts: bool = True,
        known: Sequence[int] = (),
    ) -> None:
        """`compacts`: the allocator can use all that is not live. `known`: lengths that end the
        search on a like device."""
        self._runs = list(measured)
        self._capacity, self._budget = capacity, budget
        self._most, self._step = most, step
        self._compacts, self._known = compacts, list(known)
        self._rounds = 0
        self._here: list[Run] = []  # that ran with the device's memory
        self.best: Run | None = None  # the longest that ran with the device's memory
        self.fails: Run | None = None  # the shortest that did not

    def tell(self, run: Run) -> None:
        if run.ok:
            self._here.append(run)
            self._runs = sorted([r for r in self._runs if r.length != run.length] + [run], key=lambda r: r.length)
            if self.best is None or run.length > self.best.length:
                self.best = run
        elif self.fails is None or run.length < self.fails.length:
            self.fails = run

    def propose(self) -> list[int]:
        """One or two lengths to try next, or none: the search is over."""
        self._rounds += 1
        if self._is_over():
            return []
        wanted = self._known if self._known else self._guesses()
        self._known = []
        low = self.best.length if self.best else 0
        high = self.fails.length if self.fails else self._most + self._step
        lengths = {self._rounded(min(wanted), up=False), self._rounded(max(wanted), up=True)}
        fitting = sorted(length for length in lengths if low < length < high)
        return fitting or [self._between(low, high)]

    def _rounded(self, length: float, up: bool) -> int:
        steps = -(-int(length) // self._step) if up else int(length) // self._step
        return max(1, min(steps, self._most // self._step)) * self._step

    def _between(self, low: int, high: int) -> int:
        """At the latest a bisection comes to an end."""
        if self.fails is None:
            return self._rounded(low * (1 + _SETTLED), up=True)
        return self._rounded((low + high) / 2, up=low == 0)

    def _is_over(self) -> bool:
        if self._rounds > _ROUNDS:
            return True
        if self.fails is None:
            return self.best is not None and self.best.length > self._most - self._step
        if self.fails.length <= self._step:
            return True
        low = self.best.length if self.best else 0
        gap = self.fails.length - low
        return gap <= self._step or gap <= _SETTLED * self.fails.length

    def _guesses(self) -> list[float]:
        need = Need(self._runs, self._budget, lambda run: run.live)
        likely = need.longest(self._capacity, self._most)
        fits = self._fits()
        if len(self._here) > 1 and likely < fits * (1 + _SETTLED):
            # Without a limit it needs more than it makes do with: a program may take what room there is.
            need = Need(self._here, self._budget, lambda run: run.live)
            likely = min(need.longest(self._capacity, self._most), _CAREFUL_GROWTH * fits)
        if self.fails is None:
            first, second = likely * _BELOW, likely * _ABOVE
            if not self._compacts and self.best is None:
                held = Need(self._runs, self._budget, lambda run: run.held)
                first = held.longest(self._capacity, self._most)
                second = (first + likely) / 2
            if not need.is_known_at(likely):
                first, second = likely, likely * _APART
            # What ran says the prediction is too low: beyond it, and not too far.
            least = max(fits * (1 + _SETTLED / 2), self._step) if self.best else 0.0
            first = max(least, min(first, max(fits, self._step) * _MOST_GROWTH))
            return [first, max(first, min(second, fits * _MOST_GROWTH))]
        low, high = fits, self.fails.length
        if low * (1 + _SETTLED) < likely * _BELOW and likely * _ABOVE < high * (1 - _SETTLED) and self.best:
            return [likely * _BELOW, likely * _ABOVE]
        if self.best is None and high - low <= max(self._step, _SETTLED * high):
            return [low]
        if self.best is None and self._rounds == 2 and low < 0.9 * high:
            return [high * (1 - 2 * _SETTLED), high * (1 - _SETTLED)]  # the prediction was close, as a rule
        if low == 0:
            return [self._step, high * 0.6]
        return [low + (high - low) / 3, low + 2 * (high - low) / 3]

    def _fits(self) -> int:
        """The longest that is known to fit: it ran here, or needed no more than there is here."""
        lengths = [run.length for run in self._runs if run.ok and run.held <= self._capacity]
        if self.best is not None:
            lengths.append(self.best.length)
        bound = self.fails.length if self.fails else 1 << 62
        return max((length for length in lengths if length < bound), default=0)
