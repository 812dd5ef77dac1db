"""One process of swap_cost.py, on a simulated device: prints a list of rows as JSON."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ebbtide._offload._layer_saving import recorder_for
from ebbtide._offload._native_saving import Externals
from ebbtide._offload._store import Store
from ebbtide._offload._swap_store import SwapStore

# Tensors of a layer, in how many pieces they are saved, in how many layers. Three: its input,
# attention's output and log-sum-exp.
CASES = (
    *((layers, 3, 3) for layers in (8, 32, 128)),
    *((layers, 64, pieces) for pieces in (1, 16, 64) for layers in (8, 32, 128)),
    *((layers, 256, 32) for layers in (32, 128)),
)
TENSOR_BYTES = 2 << 20
TURNS = 21  # of 7 the median of one case in six was half as much again
NO_LIMIT = 1 << 62


class _Save(torch.autograd.Function):
    """Saves tensors and asks for them in backward; no work beside that."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradient, *(None for _ in ctx.saved_tensors)


def no_hooks() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def empty_hooks() -> torch.autograd.graph.saved_tensors_hooks:
    """The least that hooks written in Python cost."""
    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


class Program:
    """Layers that save `tensors` tensors each, in groups: in a store, or (None) through torch's hooks."""

    def __init__(
        self,
        layers: int,
        tensors: int,
        group: int,
        store: Store | None,
        hooks: Callable[[], contextlib.AbstractContextManager[Any]] = no_hooks,
    ) -> None:
        self._layers, self._tensors, self._group, self._store = layers, tensors, group, store
        self._hooks = hooks
        self._anchor = torch.empty(1, device="cuda", requires_grad=True)
        self._externals = Externals()

    def step(self) -> float:
        """Processor seconds of a layer, forward and backward, without making the tensors."""
        spent = 0.0
        graph = []
        for _ in range(self._layers):
            made = [
                torch.empty(TENSOR_BYTES, dtype=torch.uint8, device="cuda")
                for _ in range(self._tensors)
            ]
            begin = time.process_time()
            graph.append(self._forward(made))
            del made
            spent += time.process_time() - begin
        begin = time.process_time()
        while graph:
            pieces = graph.pop()
            for _, saved in graph[-1] if graph else ():
                for each in saved:
                    each.prefetch()
            # In one call: each one wakes autograd's thread, which costs as much as all else here.
            torch.autograd.grad([output for output, _ in pieces], self._anchor)
            del pieces
        return (spent + time.process_time() - begin) / self._layers

    def _forward(self, made: list[torch.Tensor]) -> list[tuple[torch.Tensor, list[Any]]]:
        groups = [made[at : at + self._group] for at in range(0, self._tensors, self._group)]
        made.clear()
        if self._store is None:
            with self._hooks():
                return [(_Save.apply(self._anchor, *group), []) for group in groups]
        pieces = []
        for group in groups:
            recorder = recorder_for(self._store, self._externals)
            with recorder.hooks():
                output = _Save.apply(self._anchor, *group)
            handed = recorder.hand_over(self._store, [], NO_LIMIT)
            pieces.append((output, handed.saved))
        self._store.layer_ended()
        return pieces


def measure(layers: int, tensors: int, pieces: int) -> dict[str, float]:
    group = -(-tensors // pieces)
    store = SwapStore("cuda", 1 << 42)
    programs = {
        "plain": Program(layers, tensors, group, None),
        "saved": Program(layers, tensors, group, store),
        "hooks": Program(layers, tensors, group, None, empty_hooks),
    }
    for program in programs.values():
        program.step()  # host memory is pinned in the first one
    # In turns, so that a slower moment of the machine slows all.
    turns = [{name: each.step() * 1e3 for name, each in programs.items()} for _ in range(TURNS)]

    def added(name: str) -> float:
        return statistics.median(turn[name] - turn["plain"] for turn in turns)

    def least(name: str) -> float:
        return min(turn[name] for turn in turns)

    row = {
        "layers": layers,
        "tensors": tensors,
        "pieces": pieces,
        "layer_ms": added("saved"),
        "least_layer_ms": least("saved") - least("plain"),
        "hooks_ms": added("hooks"),
        "plain_ms": statistics.median(turn["plain"] for turn in turns),
        "host_waits": store.stats().host_waits,
    }
    store.close()
    return row


if __name__ == "__main__":
    print(json.dumps([measure(*case) for case in CASES]))
