"""What `ebbtide.offload` was asked for, checked; sizes such as "120GiB"."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib

from .._errors import EbbtideError
from .._sizes import forgotten_unit, parse_size
from ._keeping import Keeping
from ._simulation import is_simulated

_SIMULATED_BYTES = 1 << 46
_LEAST_BARE = 4096  # a test may have a small budget, but none of less than a page
AUTO = "auto"  # alpha: choose the share from what was measured and from the budgets
MEMO = "memo"  # alpha: MEMO's closed form
SAVE, REPEAT = "save", "recompute"  # attention: all that it saves, or nothing. AUTO: what is worth it
_ATTENTION = (AUTO, SAVE, REPEAT)


@dataclasses.dataclass(frozen=True)
class Options:
    """One model's settings. Immutable; make another with dataclasses.replace.

    alpha          share of each layer's tokens whose activations are swapped, 0 to 1 (MEMO 4.1); the
                   others are recomputed. The layer's input and attention's output are always saved.
    layer_alphas   each layer's own alpha, in order; empty: all have `alpha`
    keeping        layers that keep all they save on the device, where a call leaves room for it; None: keep_last alone
    mini_sequence  tokens a piece; None: chosen from bytes
    fewest_pieces  of a layer, where bytes leave the choice
    hbm            most device bytes for saved tensors: as many last layers stay as fit, and what the
                   host has no room for; None: keep_last, and no limit
    host           most bytes of pinned host memory; None: three quarters of what is available
    keep_last      last layers whose saved tensors stay on the device. MEMO keeps two; a copy that
                   hides behind one layer's forward is back in time for all but the last
    attention      "auto": its output is saved, and its forward runs again in backward where what it saves beside
                   is far more; "save": once, whatever it saves; "recompute": not even the output is saved
    label_smoothing, z_loss   terms of the loss, for programs that would need whole logits for them
    logits         whether an evaluation with labels returns whole logits; None: where they are small
    fetches_early  in backward a layer's input and attention's output come back before the attention of the
                   layer behind it has run, where the device has room; else behind it. For alpha="auto"
    strict         what cannot be done is an error, not a line and a way around
    """

    alpha: float = 0.0
    layer_alphas: tuple[float, ...] = ()
    keeping: Keeping | None = None
    mini_sequence: int | None = None
    fewest_pieces: int = 1
    hbm: int | None = None
    host: int | None = None
    keep_last: int = 1
    attention: str = AUTO
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    logits: bool | None = None
    fetches_early: bool = False
    strict: bool = False

    def alpha_of_layer(self, index: int) -> float:
        return self.layer_alphas[index] if self.layer_alphas else self.alpha

    def check(self) -> None:
        """Raises EbbtideError, which names the setting, its value and what is allowed."""
        _check_share("alpha", self.alpha, "the share of tokens whose activations are swapped")
        _check_share("label_smoothing", self.label_smoothing, "the share given to all other words")
        if self.mini_sequence is not None and not _is_count(self.mini_sequence, 1):
            _refuse("mini_sequence", self.mini_sequence, "a number of tokens from 1, or None")
        if not _is_count(self.keep_last, 0):
            _refuse("keep_last", self.keep_last, "a number of layers from 0")
        if self.attention not in _ATTENTION:
            _refuse("attention", repr(self.attention), ", ".join(map(repr, _ATTENTION)))
        if not _is_number(self.z_loss) or not 0 <= self.z_loss < math.inf:
            _refuse("z_loss", self.z_loss, "a weight from 0, such as 1e-4")
        if self.logits not in (None, True, False):
            _refuse("logits", self.logits, "True, False or None")
        if self.host is not None and self.host > host_memory():
            raise EbbtideError(
                f"host={gib(self.host)}: this machine has {gib(host_memory())} of memory; give a "
                "smaller host budget (EBBTIDE_HOST)"
            )


def _refuse(name: str, value: object, allowed: str) -> None:
    raise EbbtideError(f"{name}={value}: allowed is {allowed}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_share(name: str, value: object, meaning: str) -> None:
    if not _is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        _refuse(name, value, f"a number from 0 to 1, {meaning}")


def alpha_of(name: str, value: object, also: str = "") -> float | str:
    """From 0.5, "0.5", "auto" or "memo". `name` is the setting and `also` what else it may be, for the error."""
    if isinstance(value, str) and value.strip().lower() in (AUTO, MEMO):
        return value.strip().lower()
    try:
        share = float(value) if isinstance(value, str) else value
    except ValueError:
        share = None
    if not _is_number(share) or not 0 <= share <= 1:  # type: ignore[operator]
        _refuse(name, value, f"{also}auto, memo, or a number from 0 to 1, the share of tokens that is swapped")
    return float(share)  # type: ignore[arg-type]


def bytes_of(name: str, value: object) -> int | None:
    """From a number of bytes or a text such as "120GiB" or "1.5TB"; None and "" are no limit."""
    if value is None or value == "":
        return None
    is_whole = isinstance(value, str) or _is_count(value, 0)
    if is_whole and (hint := forgotten_unit(str(value), _LEAST_BARE)):
        raise EbbtideError(f"{name}={value}: {hint}")
    if isinstance(value, str) and (size := parse_size(value)) is not None:
        return size
    if not _is_count(value, 0):
        _refuse(name, value, "a size such as 120GiB, or a number of bytes")
    return int(value)  # type: ignore[call-overload,no-any-return]


def host_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit.

    Beside a simulated device there is as much as is asked for: what is swapped takes no bytes.
    """
    if is_simulated():
        return _SIMULATED_BYTES
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            machine = min(machine, int(pathlib.Path(limit).read_text()))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return machine


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
