"""The lines about offload in the report at exit."""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import json
import os
import pathlib
import sys

from .. import is_active
from .._report import size_text
from ._offload_stats import AllOffload, LayerStats, OffloadStats, read
from ._registry import registry
from ._swap_engine import SwapStats


def text(found: AllOffload) -> str:
    """A few lines for each model, one for each tag; empty where there is nothing to say."""
    lines = [line for model in found.models if _has_run(model) for line in _model_lines(model)]
    for tag in found.tags:
        lines.append(
            f"ebbtide tag {tag.name}: {tag.blocks} blocks saved {size_text(tag.saved_bytes)}"
        )
    lines += [line for host in found.tags_host if found.tags for line in _host_lines(host)]
    return "".join(f"{line}\n" for line in lines)


def _has_run(model: OffloadStats) -> bool:
    return model.head_calls > 0 or any(layer.calls for layer in model.layers)


def _model_lines(model: OffloadStats) -> list[str]:
    head = "in pieces" if model.head_calls else "whole"
    lines = [
        f"ebbtide offload ({model.model}, {len(model.layers)} layers, alpha {model.alpha:g}{_limit(model)}): "
        f"head and loss {head}; {_kept(model)}a call saves"
    ]
    for same, group in itertools.groupby(model.layers, key=_per_call):
        names = [layer.name for layer in group]
        shown = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        lines.append(f"  {shown}: {same}")
    lines += _plan_lines(model)
    return lines + ([] if model.host is None else _host_lines(model.host))


def _plan_lines(model: OffloadStats) -> list[str]:
    """What the address planner says of a choice."""
    if model.plan is None:
        none = "  addresses are not planned, so no plan confirms the choice: EBBTIDE=1 plans them"
        return [none] if model.limit and not is_active() else []
    if not model.plan.height_bytes:
        return ["  its steps have no plan yet that could confirm the choice"]
    height, budget = map(size_text, dataclasses.astuple(model.plan))
    return [f"  planned height {height} of budget {budget}" + ("" if model.plan.fits else ": does not fit")]


def _limit(model: OffloadStats) -> str:
    why = {
        "link": "the link carries no more during a layer's forward",
        "host": "the host budget holds no more",
        "time": "more gained nothing",
        "device": "a larger one does not fit the device",
    }
    gap = f", {100 * model.gap:.1f} % from the bound of the choice" if model.gap >= 0.001 else ""
    return f": {why[model.limit]}{gap}" if model.limit else ""


def _kept(model: OffloadStats) -> str:
    if not model.kept_layers:
        return ""
    who = "1 layer keeps all it saves" if model.kept_layers == 1 else f"{model.kept_layers} layers keep all they save"
    return f"{who}, for there is room; "


def _per_call(layer: LayerStats) -> str:
    calls = max(layer.calls, 1)
    parts = {
        "kept": layer.kept_bytes,
        "swapped": layer.swapped_bytes,
        "recomputed": layer.recomputed_bytes,
    }
    line = ", ".join(f"{word} {size_text(total // calls)}" for word, total in parts.items())
    if layer.attention_forwards > layer.calls:
        line += "; attention's forward runs again in backward"
    return line if layer.whole_because is None else f"{line} (whole: {layer.whole_because})"


def _host_lines(host: SwapStats) -> list[str]:
    copied = f"{size_text(host.swapped_out_bytes)} out, {size_text(host.swapped_in_bytes)} back"
    refused = f"; {host.refusals} times there was no room" if host.refusals else ""
    return [
        f"  host memory: peak {size_text(host.peak_live_bytes)} of {size_text(host.pinned_bytes)} "
        f"pinned, budget {size_text(host.host_budget_bytes)}; {copied}{refused}",
        f"  copies: {host.hidden_ns / 1e9:.3f} s hidden, {host.exposed_ns / 1e9:.3f} s not hidden",
    ]


class _AtExit:
    """Numbers must be read before the stores close, and written behind the engine's report."""

    def __init__(self) -> None:
        self._is_registered = False
        self._found: AllOffload | None = None

    def register(self) -> None:
        """Call it when a store has been opened: what is registered later runs earlier at exit."""
        if not self._is_registered:
            atexit.register(self._read)
        self._is_registered = True

    def _read(self) -> None:
        self._found = read()
        for model in registry.models():
            for tally in () if model.layers is None else model.layers.counts():
                tally.trace()
        if not is_active():
            self.write()

    def write(self) -> None:
        """Add what there is to say to the report, wherever EBBTIDE_REPORT sends that."""
        target = os.environ.get("EBBTIDE_REPORT", "").strip()
        if self._found is not None and text(self._found) and target != "off":
            _write(self._found, target)


def _write(found: AllOffload, target: str) -> None:
    if target.endswith(".json"):
        path = pathlib.Path(target)
        whole = json.loads(path.read_text()) if path.exists() else {}
        whole["offload"] = dataclasses.asdict(found)
        path.write_text(json.dumps(whole, indent=1) + "\n")
    elif target.endswith(".txt"):
        with open(target, "a", encoding="utf-8") as file:
            file.write(text(found))
    else:
        print(text(found), end="", file=sys.stderr, flush=True)


at_exit = _AtExit()
