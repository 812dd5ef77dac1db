"""Matrix products whose results nobody needs when a part of a layer runs again.

Note [Results that nobody needs]
In backward a part runs again for what its graph saves. What its last products give is not among that: a sum with
the residual saves nothing. (torch's checkpointing stops at the last saved tensor for the same reason; here the
graph itself is wanted, so the run goes on to its end, with zeros.) Which results these are, a few tokens tell:
all nodes that take them save none of them, and with NaN in their places everything that is saved has the same
bits, whatever way the values might have gone. Of several pieces forward, too, runs once more for what comes after
attention, and would make q, k, v again, which nobody takes: these results are in no graph of the output, and with NaN in
their places the output has the same bits. Each later run looks at its graph again: where a layer computes otherwise
by now, it runs once more, whole, and does from then on. (Not seen is a layer that changes while it trains, to values
that it takes without a graph.)
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from ._graph_needs import needless, reachable
from ._layer_tape import Tape
from ._simulation import is_simulated  # a simulated device computes nothing that could differ

Recorded = tuple[Tape, tuple[torch.Tensor, ...]]  # what Tape.record gives
Met = list[tuple[torch.nn.Linear, Any]]  # each call's module, and the node of its result

SAMPLE = 32  # tokens, that tell what nobody needs
_aten = torch.ops.aten


class UnneededProducts:
    """Of one layer. Not thread-safe."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self._layer = layer
        self._found: dict[str, list[torch.nn.Linear]] = {}  # by the layer's part

    def left_out(self, part: str, run: Callable[[], Tape], sample: Callable[[], Tape]) -> Tape:
        """What `run` returns: the tape of this part, of whose outputs nobody needs the values. May run it twice.

        `sample` runs the same part of a few tokens.
        """
        if part not in self._found:
            self._found[part] = self._find(sample)
        if not self._found[part]:
            return run()
        with _watched(self._found[part], 0.0) as met:
            tape = run()
        if _needed(tape, met):  # for good: what depends on the number of tokens no few of them tell
            self._found[part] = []
            del tape, met
            return run()
        return tape

    def left_out_forward(self, run: Callable[[], Recorded], sample: Callable[[], Recorded]) -> torch.Tensor | None:
        """The output of `run`, of whose tape nobody needs what it saves; None: all is needed, or it is not known.

        What attention takes is no part of an output whose attention is there already.
        """
        part = "forward"
        if part not in self._found:
            self._found[part] = self._find_unread(sample)
        if not self._found[part]:
            return None
        with _watched(self._found[part], 0.0) as met, saved_tensors_hooks(_forget, _forget):
            tape, (y,) = run()
        if _read(tape, met):
            self._found[part] = []
            return None
        return y

    def _find_unread(self, sample: Callable[[], Recorded]) -> list[torch.nn.Linear]:
        before = _versions(self._layer)
        with _watched(self._candidates(), None) as met, saved_tensors_hooks(_forget, _forget):
            tape, (y,) = sample()
        read = _read(tape, met)
        found = list(dict.fromkeys(module for module, _ in met if module not in read))
        if not found or _versions(self._layer) != before:
            return []
        with _watched(found, math.nan), saved_tensors_hooks(_forget, _forget):
            _, (again,) = sample()
        return found if is_simulated() or torch.equal(y, again) else []

    def _find(self, sample: Callable[[], Tape]) -> list[torch.nn.Linear]:
        before = _versions(self._layer)
        with _watched(self._candidates(), None) as met, _Saved() as hooks:
            tape = sample()
        needed = _needed(tape, met)
        found = list(dict.fromkeys(module for module, _ in met if module not in needed))
        if not found or _versions(self._layer) != before:  # NaN would stay in what it remembers
            return []
        del met  # which held nodes that are in no tape
        saved = hooks.tensors()
        with _watched(found, math.nan), _Saved() as hooks:
            tape = sample()
        again = hooks.tensors()
        del tape  # till now it held what was saved
        same = is_simulated() or (len(saved) == len(again) and all(map(torch.equal, saved, again)))
        return found if same else []

    def _candidates(self) -> list[torch.nn.Linear]:
        """Products that are what they seem. None of a layer with compiled parts: it would be compiled anew."""
        modules = list(self._layer.modules())
        if any(map(_is_compiled, modules)):
            return []
        return [module for module in modules if type(module) is torch.nn.Linear]


class _Instead(TorchDispatchMode):
    """Products are not computed: their results have this value everywhere."""

    def __init__(self, value: float | None) -> None:
        super().__init__()
        self._value = value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (_aten.mm.default, _aten.addmm.default):
            left, right = args[-2:]
            return left.new_full((left.shape[0], right.shape[1]), self._value)
        return func(*args, **(kwargs or {}))


class _Saved(saved_tensors_hooks):
    """What graphs that are made in the block save."""

    class _Held:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor.detach()

    def __init__(self) -> None:
        self._held: list[weakref.ref[_Saved._Held]] = []
        super().__init__(self._pack, lambda held: held.tensor)

    def _pack(self, tensor: torch.Tensor) -> _Saved._Held:
        held = self._Held(tensor)
        self._held.append(weakref.ref(held))
        return held

    def __enter__(self) -> _Saved:  # type: ignore[override]
        super().__enter__()
        return self

    def tensors(self) -> list[torch.Tensor]:
        """Of the graphs that are still there, in order."""
        return [held.tensor for reference in self._held if (held := reference()) is not None]


def _versions(layer: torch.nn.Module) -> list[tuple[int, int]]:
    """Tells whether a run has changed a buffer, or put another one in its place."""
    return [(id(buffer), buffer._version) for buffer in layer.buffers()]


def _is_compiled(module: torch.nn.Module) -> bool:
    return (
        module._compiled_call_impl is not None
        or isinstance(module, torch._dynamo.OptimizedModule)
        or hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
    )


@contextlib.contextmanager
def _watched(modules: Iterable[torch.nn.Linear], instead: float | None) -> Iterator[Met]:
    """The calls that these modules get, and the nodes of their results. Not of modules with hooks, or replaced.

    `instead`: not computed, but of this value.
    """
    met: Met = []

    def watch(module: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(input: torch.Tensor) -> torch.Tensor:
            is_left_out = instead is not None and _is_dense(input, module)
            with _Instead(instead) if is_left_out else contextlib.nullcontext():
                result = torch.nn.functional.linear(input, module.weight, module.bias)
            met.append((module, result.grad_fn))
            return result

        return forward

    plain = list(filter(_is_plain, modules))
    try:
        for module in plain:
            module.forward = watch(module)  # type: ignore[method-assign]
        yield met
    finally:
        for module in plain:
            module.__dict__.pop("forward", None)


def _is_plain(module: torch.nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" not in module.__dict__ and not any(hooks)


def _is_dense(tensor: torch.Tensor, module: torch.nn.Linear) -> bool:
    """No parts on other ranks, and nothing else that makes products its own way."""
    return {type(tensor), type(module.weight)} <= {torch.Tensor, torch.nn.Parameter}


def _forget(_: torch.Tensor) -> None:
    pass


def _read(tape: Tape, met: Met) -> set[torch.nn.Linear]:
    """The modules of which a result has a part in the tape's outputs, or of which that cannot be told."""
    nodes = reachable(tape.roots)
    return {module for module, node in met if node is None or node in nodes}


def _needed(tape: Tape, met: Met) -> set[torch.nn.Linear]:
    """The modules of which a result is needed, by a node of the tape."""
    free = needless(tape.roots)
    return {module for module, node in met if node not in free}
