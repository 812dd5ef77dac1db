"""Each layer's share under the limits of link, host and device, from what observed steps showed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ._choice import LayerCost, choose, device_part, in_pieces, memo_alpha
from ._keeping import Level, Weight, levels_of
from ._layer_tally import Tally

_PARTS = 64  # shares are multiples of 1/64, so that they do not follow noise


@dataclasses.dataclass(frozen=True)
class LayerSeen:
    """One layer in steps in which little but layers' inputs and attention's outputs was saved; bytes a call."""

    ran: bool
    pieces: int
    swapped: float  # went to the host
    kept: float  # stayed on the device
    rest: float  # was computed again: what a share is of
    longest: float  # the longest call's part of these
    attention: float  # bytes of heavy attention in the longest call, which is made again,
    whole: float  # and of a layer that runs whole

    @staticmethod
    def of(tally: Tally) -> LayerSeen:
        calls = max(tally.calls, 1)
        swapped, kept, rest = tally.swapped_bytes / calls, tally.kept_bytes / calls, tally.recomputed_bytes / calls
        longest = tally.most_rows * calls / tally.rows if tally.rows else 1.0
        if tally.pieces == 0:
            return LayerSeen(tally.calls > 0, 0, swapped, kept, 0.0, longest, 0.0, tally.whole_bytes)
        return LayerSeen(tally.calls > 0, tally.pieces, swapped, kept, rest, longest, tally.scores_bytes, 0.0)

    def weight(self) -> Weight:
        return Weight((self.swapped + self.rest) * self.longest, self.attention, self.whole)

    def longer(self, part: float, square: float) -> LayerSeen:
        """What the longest call would have shown with so many times as many tokens, and pairs of them."""
        most = max(part, square)
        return dataclasses.replace(
            self, longest=self.longest * part, attention=self.attention * most, whole=self.whole * most
        )


class LayerShares:
    """The most that "auto" tries, and parts of it. Layers that are `kept` keep all they save on the device, whatever
    the shares of the others; more of what stays anyway stays as much as is swapped of these."""

    def __init__(self, seen: Sequence[LayerSeen]) -> None:
        self._seen = tuple(seen)
        self.most = (0.0,) * len(self._seen)  # each layer's share, as much as the limits allow
        self.limit = ""  # what keeps it from being more: "link", "host", "device"; "": nothing
        self.gap = 0.0  # of what is recomputed, at most so much might be saved by another choice
        self.kept: Level | None = None  # the layers that keep all they save; None: none
        self.levels: tuple[Level, ...] = ()  # and more and fewer of them
        self._is_tight = False  # the device has no room for a piece more than a layer's share
        self._wanted, self._wanted_limit = self.most, ""  # as much as the link and the host allow
        self._is_raised = False  # to what the device was found to have room for beside smaller shares

    @property
    def leaving(self) -> tuple[int, ...]:
        """The layers that are swapped; others stay on the device."""
        return tuple(i for i, layer in enumerate(self._seen) if layer.swapped and not self._keeps(i))

    @property
    def moving_bytes(self) -> float:
        """The most of a layer that is swapped in the longest call beside what it always saves."""
        return max((self._seen[i].rest * self._seen[i].longest for i in self.leaving), default=0.0)

    @property
    def always_bytes(self) -> float:
        """The most that a layer is swapped of in the longest call whatever its share."""
        return max(layer.swapped * layer.longest for layer in self._seen)

    @property
    def kept_bytes(self) -> int:
        """What the layers that keep all they save hold in the longest call beside what stayed anyway."""
        return self.kept.total if self.kept is not None else 0

    def keep(self, last: int, room: float) -> None:
        """The most layers that have `room` for all they save; the `last` ones stay anyway."""
        self.kept, self.levels = levels_of([layer.weight() for layer in self._seen], last, room)

    def lengthen(self, part: float, square: float) -> None:
        """The longest call has so many times as many tokens, and pairs of them, as was seen."""
        self._seen = tuple(layer.longer(part, square) for layer in self._seen)

    def take_memos(self, link_bytes: float, host_bytes: float) -> None:
        """MEMO's closed form. `link_bytes` are copied in a layer's time."""
        swapped = [self._seen[i] for i in self.leaving]
        alpha, limit = memo_alpha(
            max(layer.swapped for layer in swapped),
            max(layer.rest for layer in swapped),
            len(swapped),
            link_bytes,
            host_bytes,
        )
        self._allow((int(alpha * _PARTS) / _PARTS,) * len(self._seen), limit)

    def take_most(self, link_bytes: float, host_bytes: float) -> None:
        """The shares for the least recomputation. `link_bytes` are copied in a layer's time.

        Assumed: a byte takes as long to compute again in every layer. The copies of all layers have the time of those
        that keep what they save, too; else that of the first one that stays.
        """
        if not self.moving_bytes:  # what is swapped are the inputs of layers that run whole
            has_more = any(layer.rest for i, layer in enumerate(self._seen) if not self._keeps(i))
            self._allow((float(has_more),) * len(self._seen), "")
            return
        leaving, ran = self.leaving, sum(layer.ran for layer in self._seen)
        behind = ran if self.kept is not None else min(ran, len(leaving) + 1)
        carried = link_bytes * behind / max(len(leaving), 1)
        costs = [LayerCost(self._seen[i].swapped, self._seen[i].rest, self._seen[i].rest, carried, _PARTS) for i in leaving]
        choice = choose(costs, host_bytes, device_bytes=0)
        found = [layer.swapped / _PARTS for layer in choice.layers]
        self.gap = choice.gap_seconds / choice.recompute_seconds if choice.recompute_seconds > 0 else 0.0
        self._allow(self._with_staying(found), choice.limits[0] if choice.limits else "")

    def take_all(self) -> None:
        """Nothing is swapped: neither link nor host limits what is kept."""
        self._allow((1.0,) * len(self._seen), "")

    def stay_within(self, room: float, hbm: float | None) -> None:
        """Lowers the shares to those that the device has `room` for, see device_part."""
        more = [share * layer.rest for layer, share in zip(self._seen, self.whole_pieces(1.0), strict=True)]
        staying = [i for i, layer in enumerate(self._seen) if layer.ran and not layer.swapped and not self._keeps(i)]
        held = sum(self._seen[i].kept for i in staying)
        part = device_part(
            room,
            moving=max((more[i] for i in self.leaving), default=0.0),
            staying=sum(more[i] for i in staying),
            staying_at_most=math.inf if hbm is None else max(0.0, hbm - held),
        )
        if part < 1:
            self.most = tuple(int(part * share * _PARTS) / _PARTS for share in self.most)
            self.limit, self._is_tight = "device", True

    @property
    def may_be_raised(self) -> bool:
        return self._is_tight and not self._is_raised

    def raise_within(self, room: float) -> float | None:
        """Larger shares, for which the device has `room` beside those that it was thought to hold at most. Returns what
        part of them these were; None: nothing is larger."""
        before, most = self.whole_pieces(1.0), self.most
        more = [
            (wanted - share) * layer.rest for layer, wanted, share in zip(self._seen, self._wanted, most, strict=True)
        ]
        staying = sum(more) - sum(more[i] for i in self.leaving)
        part = device_part(room, max((more[i] for i in self.leaving), default=0.0), staying)
        self.most = tuple(
            int((share + part * (wanted - share)) * _PARTS) / _PARTS
            for wanted, share in zip(self._wanted, most, strict=True)
        )
        if max(self.most) <= max(most) or self.whole_pieces(1.0) == before:
            self.most = most
            return None
        self._is_raised = True
        self.limit = self._wanted_limit if self.most == self._wanted else "device"
        return max(most) / max(self.most)

    def whole_pieces(self, part: float) -> tuple[float, ...]:
        """So much of the most, in pieces of each layer: what a layer's share has beside them would
        be rounded, and a piece more than the link carries is waited for."""
        leaving = self.leaving
        if not leaving:
            return tuple(part * most for most in self.most)
        pieces = [self._seen[i].pieces for i in leaving]
        return self._with_staying(in_pieces([part * self.most[i] for i in leaving], pieces, not self._is_tight))

    def _allow(self, most: tuple[float, ...], limit: str) -> None:
        self.most, self.limit = self._wanted, self._wanted_limit = most, limit
        self._is_tight = self._is_raised = False

    def _with_staying(self, found: Sequence[float]) -> tuple[float, ...]:
        """Of layers that stay as much stays as is swapped of others."""
        shares = [max(found, default=0.0)] * len(self._seen)
        for i, share in zip(self.leaving, found, strict=True):
            shares[i] = share
        return tuple(shares)

    def _keeps(self, index: int) -> bool:
        return self.kept is not None and self.kept.stays[index]
