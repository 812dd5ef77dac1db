"""What becomes of each layer's activations: kept on the device, swapped, or recomputed.

The layers' inputs and attention's outputs are swapped first. Of the rest, what is neither kept nor
swapped is computed again; the choice makes that time least, under three limits:

    link     a layer's copies hide behind one layer's forward: at most `link_bytes` of it are swapped
    host     pinned host memory for all of them
    device   device memory for what is kept

Activations are chosen in whole mini-sequences. Without pieces the greedy below is exact: bytes are
worth their layer's recompute time for a byte wherever they go, and the device takes any layer's, so
filling the host first and going through the layers by worth is optimal (the sets that can be stored
form a polymatroid). With pieces what it can lose is known: `gap_seconds`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence


LATE = 0.007  # part of a step that may be waited for copies, as the engine counts it; streams stood still for up to 1.4 times that


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Of one layer in one step: bytes that are always swapped, the rest, seconds to compute the rest
    again, bytes that its copies can hide."""

    always_bytes: float
    rest_bytes: float
    recompute_seconds: float
    link_bytes: float
    pieces: int = 1


@dataclasses.dataclass(frozen=True)
class LayerChoice:
    """Mini-sequences of one layer; those that are neither kept nor swapped are recomputed."""

    kept: int
    swapped: int


@dataclasses.dataclass(frozen=True)
class Choice:
    """`limits` keep more from being stored, none if all is: "link" or "host", and "device" with it.

    `recompute_seconds` is at most `gap_seconds` more than any choice needs.
    """

    layers: tuple[LayerChoice, ...]
    recompute_seconds: float
    gap_seconds: float
    limits: tuple[str, ...]


def memo_alpha(
    always: float, rest: float, layers: int, bytes_per_layer_time: float, host_bytes: float
) -> tuple[float, str]:
    """MEMO's closed form (arXiv 2407.12117, 4.1): the largest alpha, and the limit that binds.

    Bytes of one layer, the layers that are swapped, and both limits:

        always + alpha * rest            <= bytes_per_layer_time   copied during one layer's forward
        layers * (always + alpha * rest) <= host_bytes
    """
    if rest <= 0 or layers <= 0:
        return 0.0, ""
    by_link = (bytes_per_layer_time - always) / rest
    by_host = (host_bytes / layers - always) / rest
    share = min(by_link, by_host, 1.0)
    if share >= 1:
        return 1.0, ""
    return max(share, 0.0), "link" if by_link <= by_host else "host"


def device_part(room: float, moving: float, staying: float, staying_at_most: float = math.inf) -> float:
    """The largest part, 0 to 1, of shares for which a device has `room`, all in bytes.

    With the whole shares one layer more has `moving` on its way between device and host while the next one runs,
    and the layers that stay keep `staying` more, but never more than `staying_at_most`. Layers beside that free
    what they made as they go.
    """
    if moving + staying <= 0:
        return 1.0
    part = room / (moving + staying)
    if part * staying > staying_at_most:
        part = (room - staying_at_most) / moving if moving > 0 else 1.0
    return min(1.0, max(0.0, part))


def in_pieces(shares: Sequence[float], pieces: Sequence[int], is_carried: bool = True) -> tuple[float, ...]:
    """The shares in whole pieces of each layer, of which there are so many; 0: the share stays as it is.

    Never more: up to any layer at most as much as the shares say, and nowhere much less. What was no whole piece
    of one layer `is_carried` to the next, so that a layer may have one piece more than its share, else is lost.
    """
    found, carried = [], 0.0
    for share, count in zip(shares, pieces, strict=True):
        if count <= 0:
            found.append(share)
            continue
        wanted = share + carried
        swapped = min(count, _whole(wanted, 1 / count)) / count
        carried = wanted - swapped if is_carried else 0.0
        found.append(swapped)
    return tuple(found)


class AlphaSearch:
    """What part of the largest share has the shortest measured step, among multiples of 1/64.

    Steps get shorter with it while copies hide, and longer once they do not: the time has one
    minimum. Halves the widest interval beside the best share so far in which that can still lie.
    A share may be refused, because a plan of its steps' addresses needs more than the device has: more
    is on its way there the larger the share, so no larger one is taken either. One whose steps wait for copies
    for too long swaps more than the link hides, and is not taken, though its steps may be the shortest. Not thread-safe.
    """

    _GRID = 64
    _MOST_PROBES = 6
    _WORTH = 0.005  # a gain below this is not looked for, nor paid for with more copies

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}  # of shares that were not refused
        self._refused = self._GRID + 1  # the smallest share that was
        self._tried: set[int] = set()
        self._late: set[int] = set()  # shares whose steps wait for too long

    def note(self, part: float, seconds: float, waited: float = 0.0) -> None:
        """A step at that part took `seconds`, in `waited` of which it stood still for copies."""
        share = round(part * self._GRID)
        self._tried.add(share)
        if share < self._refused:
            self._seconds[share] = seconds
        if waited > LATE * seconds:
            self._late.add(share)

    def refuse(self, part: float) -> None:
        share = round(part * self._GRID)
        self._tried.add(share)
        self._refused = min(self._refused, share)
        self._seconds = {one: spent for one, spent in self._seconds.items() if one < self._refused}

    def scaled(self, ratio: float) -> AlphaSearch:
        """What was measured, as parts of a larger share: `ratio`, below 1, is the part of it that was all."""
        search = AlphaSearch()
        search._seconds = {int(share * ratio): spent for share, spent in sorted(self._seconds.items())}
        search._tried = set(search._seconds)
        search._late = {int(share * ratio) for share in self._late}
        return search

    @property
    def is_bounded(self) -> bool:
        """Whether it was a refusal that kept the best share from being larger: nothing between was found wanting."""
        return self._refused <= self._GRID and self.best() * self._GRID >= max(self._seconds, default=0)

    @property
    def is_late_beyond(self) -> bool:
        """Whether a larger share than the best one was found to wait for too long."""
        return max(self._late, default=0) > self.best() * self._GRID

    @property
    def shortest(self) -> float:
        """Seconds of the step at `best`, or of one as good; infinite: nothing was noted."""
        return min(self._allowed().values(), default=math.inf)

    def best(self) -> float:
        """The smallest share whose step is as good as the shortest: it waits less for copies, and takes less
        of the host's memory."""
        if not self._seconds:
            return 1.0 if self._refused > self._GRID else self._refused // 2 / self._GRID
        allowed = self._allowed()
        enough = min(allowed.values()) * (1 + self._WORTH)
        return min(share for share, seconds in allowed.items() if seconds <= enough) / self._GRID

    def _allowed(self) -> dict[int, float]:
        """Those that do not wait for too long; if all of them do, all. Requires: something was noted."""
        return {share: spent for share, spent in self._seconds.items() if share not in self._late} or self._seconds

    def following(self) -> float | None:
        """The part to try next; None: `best` is the answer."""
        for share in (0, self._GRID):
            if share not in self._seconds and share < self._refused:
                return share / self._GRID
        if not self._seconds or len(self._tried) >= self._MOST_PROBES:
            return None
        shares, allowed = sorted(self._seconds), self._allowed()
        at = shares.index(min(allowed, key=lambda share: (allowed[share], share)))
        ends = shares[1:] + [self._refused] * (self._refused <= self._GRID)
        beside = [
            (high - low, low, high)
            for low, high in zip(shares, ends, strict=False)
            if shares[at] in (low, high) and high - low > 1 and self._is_worth_halving(low, high)
        ]
        if not beside:
            return None
        _, low, high = max(beside)
        return ((low + high) // 2) / self._GRID

    def _is_worth_halving(self, low: int, high: int) -> bool:
        """Whether a minimum between the two could still matter.

        The time is convex: it lies above the line through a point on one side of the two, and one of
        them. Without such a point it may fall as far as the rest of it did. Below a share that waits for too
        long it may be nearly as short as there.
        """
        seconds, shares = self._seconds, sorted(self._seconds)
        least = min(self._allowed().values())
        if high in self._late and seconds.get(high, least) < least * (1 - self._WORTH):
            return True
        bounds = []
        before = [share for share in shares if share < low]
        after = [share for share in shares if share > high]
        if before:
            slope = (seconds[low] - seconds[before[-1]]) / (low - before[-1])
            bounds.append(seconds[low] + slope * (high - low))
        if after:
            slope = (seconds[after[0]] - seconds[high]) / (after[0] - high)
            bounds.append(seconds[high] - slope * (high - low))
        return not bounds or max(bounds) < least * (1 - self._WORTH)


def choose(layers: Sequence[LayerCost], host_bytes: float, device_bytes: float) -> Choice:
    """The choice with the least time of recomputation. Never swaps more than the link hides.

    What is always swapped is taken from `host_bytes` first, and from `device_bytes` where the host
    has no room for it.
    """
    always = sum(layer.always_bytes for layer in layers)
    device = device_bytes - max(0.0, always - host_bytes)
    host = max(0.0, host_bytes - always)
    return _Greedy(layers, host, max(0.0, device)).choice()


def _worth(layer: LayerCost) -> float:
    return layer.recompute_seconds / layer.rest_bytes if layer.rest_bytes > 0 else 0.0


class _Greedy:
    def __init__(self, layers: Sequence[LayerCost], host: float, device: float) -> None:
        self._layers = layers
        self._host, self._device = host, device
        self._order = sorted(range(len(layers)), key=lambda i: -_worth(layers[i]))

    def choice(self) -> Choice:
        chosen = [LayerChoice(0, 0)] * len(self._layers)
        host, device = self._host, self._device
        recomputed = 0.0
        for i in self._order:
            layer = self._layers[i]
            piece = layer.rest_bytes / layer.pieces
            room = min(max(0.0, layer.link_bytes - layer.always_bytes), host)
            swapped = min(layer.pieces, _whole(room, piece))
            kept = min(layer.pieces - swapped, _whole(device, piece))
            host -= swapped * piece
            device -= kept * piece
            chosen[i] = LayerChoice(kept, swapped)
            recomputed += layer.recompute_seconds * (1 - (swapped + kept) / layer.pieces)
        gap = max(0.0, recomputed - self._bound())
        # Pieces of one weight and one worth: no other choice stores more of them than this one does.
        if len({(layer.rest_bytes / layer.pieces, _worth(layer)) for layer in self._layers}) <= 1:
            gap = 0.0
        return Choice(tuple(chosen), recomputed, gap, self._limits(chosen, host))

    def _bound(self) -> float:
        """The least time with pieces as small as one likes."""
        host, device = self._host, self._device
        recomputed = 0.0
        for i in self._order:
            layer = self._layers[i]
            swapped = min(max(0.0, layer.link_bytes - layer.always_bytes), host, layer.rest_bytes)
            kept = min(layer.rest_bytes - swapped, device)
            host -= swapped
            device -= kept
            recomputed += _worth(layer) * (layer.rest_bytes - swapped - kept)
        return recomputed

    def _limits(self, chosen: Sequence[LayerChoice], host: float) -> tuple[str, ...]:
        """What, if there were more of it, would let something more be stored."""
        short = [
            layer
            for layer, choice in zip(self._layers, chosen, strict=True)
            if choice.kept + choice.swapped < layer.pieces
        ]
        if not short:
            return ()
        if any(host < layer.rest_bytes / layer.pieces for layer in short):
            return ("host", "device")
        return ("link", "device")


def _whole(room: float, piece: float) -> int:
    """How many pieces fit; a rounding error does not cost one."""
    if piece <= 0:
        return 1 << 30
    return max(0, math.floor(room / piece * (1 + 1e-12)))
