"""The longest sequence that one way of training takes, in this process: prints one JSON object.

Bisected; a length counts if a whole step runs: forward, backward, optimizer, with all of the
optimizer's states there. longest_length.py starts it on simulated devices.

    ebbtide dryrun --device h100-80g --capacity 80GiB -- python bench/longest_run.py ours --host 128GiB
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import models
import scenarios
import torch

WAYS = ("plain", "checkpointing", "save_on_cpu", "trl", "ours")
_KI = 1024
_PATIENCE_S, _TRIFLE_BYTES = 120.0, 1 << 20  # how long a failed step's memory is waited for; how much is none


def make_model(options: argparse.Namespace) -> Any:
    row = scenarios.Scenario(
        "longest",
        (options.highest, options.highest),
        layers=options.layers,
        vocabulary=128256,
        checkpointing=options.way in ("checkpointing", "save_on_cpu", "trl"),
    )
    model = models.make_model(row, torch.device("cuda"), real_values=False)
    if options.lora:
        import peft

        config = peft.LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config)
        model.to(torch.bfloat16)
        if options.way != "ours":  # checkpointing needs it; a leaf holds its bytes to the end
            model.enable_input_require_grads()
    if options.way == "ours":
        import ebbtide

        ebbtide.offload(model, alpha=options.alpha, host=options.host, attention=options.attention,
                        keep_last=options.keep_last, strict=True)
    return model


def around(options: argparse.Namespace, model: Any) -> Callable[[], Any]:
    """What a forward runs under."""
    if options.way == "save_on_cpu":
        return lambda: torch.autograd.graph.save_on_cpu(pin_memory=True)
    if options.way == "trl":
        from trl.models.activation_offloading import get_act_offloading_ctx_manager

        return lambda: get_act_offloading_ctx_manager(model)
    return contextlib.nullcontext


class Trainer:
    """Steps of AdamW with states in the parameters' precision, for each parameter in backward if asked to."""

    def __init__(self, model: Any, in_backward: bool, context: Callable[[], Any]) -> None:
        self._model, self._context = model, context
        self.peaks: dict[int, int] = {}  # peak live bytes of each length that ran
        self.swapped: dict[int, int] = {}  # and what it had in host memory
        parameters = [p for p in model.parameters() if p.requires_grad]
        self._at_rest = 0  # bytes between steps
        self._optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        if in_backward:
            import ebbtide

            ebbtide.step_in_backward(self._optimizer)

    def warm_up(self) -> None:
        """One short step: from here on there are optimizer states."""
        self.step(256)
        self._at_rest = torch.cuda.memory_allocated()

    def step(self, tokens: int) -> None:
        ids = torch.zeros(1, tokens, dtype=torch.long, device="cuda")
        with self._context():
            loss = self._model(input_ids=ids, labels=ids).loss
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def runs_at(self, tokens: int) -> bool:
        self._forget_step()
        torch.cuda.reset_peak_memory_stats()
        swapped = swapped_out_bytes()
        try:
            self.step(tokens)
            self.peaks[tokens] = int(torch.cuda.max_memory_allocated())
            self.swapped[tokens] = swapped_out_bytes() - swapped
            return True
        except torch.OutOfMemoryError:
            return False

    def _forget_step(self) -> None:
        """Of the one before, which may have failed: of a failed backward, autograd's thread lets go only
        after the error has reached this one, and on a busy machine that takes its time. Going on before
        would measure a smaller device. Raises RuntimeError if it never lets go."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            self._optimizer.zero_grad()
            gc.collect()
            left = torch.cuda.memory_allocated() - self._at_rest
            if left < _TRIFLE_BYTES:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"a failed step still holds {left >> 20} MiB after {_PATIENCE_S:.0f} s")
            time.sleep(0.02)
        torch.cuda.empty_cache()


def swapped_out_bytes() -> int:
    """Since the start; 0 without offload."""
    offload = sys.modules.get("ebbtide._offload")
    if offload is None:
        return 0
    import ebbtide

    host = ebbtide.stats().offload.models[0].host
    return int(host.swapped_out_bytes) if host else 0


def longest(trainer: Trainer, options: argparse.Namespace) -> int:
    """A multiple of options.precision; 0 if not even that runs."""
    low, high = 0, options.highest // options.precision
    if trainer.runs_at(high * options.precision):
        return high * options.precision
    while high - low > 1:
        middle = (low + high) // 2
        fits = trainer.runs_at(middle * options.precision)
        print(f"{middle * options.precision // _KI}K {'runs' if fits else 'is too long'}", file=sys.stderr)
        low, high = (middle, high) if fits else (low, middle)
    return low * options.precision


def measure(options: argparse.Namespace) -> dict[str, Any]:
    model = make_model(options)
    trainer = Trainer(model, options.in_backward, around(options, model))
    trainer.warm_up()
    reached = longest(trainer, options)
    found: dict[str, Any] = {"way": options.way, "longest": reached}
    if reached:
        half = reached // 2
        trainer.runs_at(half)
        found["peak_bytes"] = trainer.peaks[reached]
        found["bytes_per_token"] = (trainer.peaks[reached] - trainer.peaks[half]) / (reached - half)
        if options.way == "ours":
            found["host_bytes"] = trainer.swapped[reached]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("way", choices=WAYS)
    add("--highest", type=int, default=2048 * _KI, help="the longest length that is tried")
    add("--precision", type=int, default=8 * _KI, help="of the length")
    add("--layers", type=int, default=32)
    add("--lora", action="store_true", help="adapters of rank 16; everything else is frozen")
    add("--in-backward", action="store_true", help="the optimizer's step inside of backward")
    add("--alpha", type=float, default=0.0)
    add("--host", default="128GiB", help="host budget")
    add("--attention", default="auto", choices=["auto", "save", "recompute"])
    add("--keep-last", type=int, default=1)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
