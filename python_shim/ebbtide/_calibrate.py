"""`ebbtide calibrate`: measures a GPU and writes a device file with the shares that it reaches.

Peaks and facts come from the file of the same device; only the shares are measured, at sizes that fill the
device. Copies and additions are the best of a few turns; products and attention go on for a second, as in training:
a device that was idle runs faster than it can for long. Times are those of CUDA events around work that is
queued back to back, so the same program, run on a simulated device, gives back the shares of that device's own file.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

from . import _devices
from ._errors import EbbtideError

_REPEATS = 3
_QUEUED = 0.02  # seconds of work between two events: beside them the first launch's latency is nothing
_SUSTAINED = 1.0  # seconds, of which the second half counts: by then clocks are what power allows
_SIDE = 8192  # of the square matrices
_TILE = 128  # rows of one of cuBLAS's tiles
_TOKENS, _HEADS, _HEAD_SIZE = 16384, 16, 128
_ELEMENTS = 1 << 28  # of the bfloat16 tensors that are added
_ROW = 128
_COPIED = 1 << 30  # bytes
_PAGEABLE = 1 << 28


@dataclasses.dataclass(frozen=True)
class _Attention:
    """A kernel of torch's attention: its backend, what its shares begin with, and the keys that each
    query of causal attention costs beyond those that it sees (dryrun/torch/attention_work.cpp)."""

    backend: str
    share: str
    idle_forward: int
    idle_backward: int


_FLASH = _Attention("FLASH_ATTENTION", "attention", 150, 220)
_CUDNN = _Attention("CUDNN_ATTENTION", "cudnn_attention", 460, 640)


class _Bench:
    """Seconds of work on the current device. Requires: torch sees one."""

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def _turns(self, work: Callable[[], object], *times: int) -> list[float]:
        """Seconds of one `work` in each turn of so many, queued one behind the other."""
        torch = self._torch
        moments = [torch.cuda.Event(enable_timing=True) for _ in range(len(times) + 1)]
        torch.cuda.synchronize()
        moments[0].record()
        for count, moment in zip(times, moments[1:], strict=True):
            for _ in range(count):
                work()
            moment.record()
        torch.cuda.synchronize()
        pairs = zip(moments, moments[1:], times, strict=False)
        return [start.elapsed_time(end) / 1e3 / count for start, end, count in pairs]

    def _times_in(self, work: Callable[[], object], seconds: float) -> int:
        """How often `work` is done in that time, at least once. The first time it prepares what it needs."""
        _, once = self._turns(work, 1, 2)
        return max(1, math.ceil(seconds / once))

    def seconds(self, work: Callable[[], object]) -> float:
        """The best of a few turns."""
        return min(self._turns(work, *[self._times_in(work, _QUEUED)] * _REPEATS))

    def sustained(self, work: Callable[[], object]) -> float:
        """What it takes where the device does nothing else for long."""
        half = self._times_in(work, _SUSTAINED / 2)
        return self._turns(work, half, half)[1]

    def tensor(self, *shape: int) -> Any:
        """Normally distributed numbers: others draw less power, and are faster."""
        return self._torch.randn(*shape, dtype=self._torch.bfloat16, device="cuda")

    def matrix(self) -> float:
        """Operations a second, of whole waves: each multiprocessor has as many of cuBLAS's tiles."""
        rows = _TILE * self._torch.cuda.get_device_properties(0).multi_processor_count
        a, b = self.tensor(rows, _SIDE), self.tensor(_SIDE, _SIDE)
        return 2 * rows * _SIDE**2 / self.sustained(lambda: a @ b)

    def attention_kernels(self) -> list[_Attention]:
        """FlashAttention, and cuDNN's attention where torch takes it by itself."""
        torch = self._torch
        q = self.tensor(1, 1, _TOKENS, _HEAD_SIZE).requires_grad_()
        chosen = torch._fused_sdp_choice(q, q, q, is_causal=True)
        takes_cudnn = chosen == torch.nn.attention.SDPBackend.CUDNN_ATTENTION.value
        return [_FLASH, _CUDNN] if takes_cudnn else [_FLASH]

    def attention(self, kernel: _Attention) -> tuple[float, float]:
        """Operations a second, forward and backward, causal, those of no use among them."""
        torch = self._torch
        # Token by token, as models have them: FlashAttention's backward copies what lies otherwise.
        q = self.tensor(1, _TOKENS, _HEADS, _HEAD_SIZE).transpose(1, 2).requires_grad_()
        k, backend = q.detach(), getattr(torch.nn.attention.SDPBackend, kernel.backend)

        def attend() -> Any:
            with torch.nn.attention.sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True)

        forward_flops = 2 * _TOKENS**2 * _HEADS * _HEAD_SIZE
        out = attend()
        gradient = torch.randn_like(out)
        with torch.no_grad():
            forward = self.sustained(attend)
        # Not backward(), which adds to what the last one left.
        backward = self.sustained(lambda: torch.autograd.grad(out, q, gradient, retain_graph=True))
        seen = _TOKENS / 2
        return (
            (1 + kernel.idle_forward / seen) * forward_flops / forward,
            (1 + kernel.idle_backward / seen) * 2.5 * forward_flops / backward,
        )

    def memory(self) -> float:
        """Bytes a second of an addition: two tensors are read, one is written."""
        a, b, c = (self.tensor(_ELEMENTS) for _ in range(3))
        return 3 * 2 * _ELEMENTS / self.seconds(lambda: self._torch.add(a, b, out=c))

    def element(self) -> float:
        """Seconds of an element in a product with a row, which torch takes element by element."""
        a, row = self.tensor(_ELEMENTS // _ROW, _ROW), self.tensor(_ROW)
        return self.seconds(lambda: self._torch.mul(a, row, out=a)) / _ELEMENTS

    def link(self) -> tuple[float, float, float]:
        """Bytes a second to the host: alone, in both directions at once together, of ordinary memory."""
        torch = self._torch
        far = [torch.zeros(_COPIED, dtype=torch.uint8, device="cuda") for _ in range(2)]
        near = [torch.zeros(_COPIED, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        ordinary = torch.zeros(_PAGEABLE, dtype=torch.uint8)
        side = torch.cuda.Stream()
        alone = self.seconds(lambda: near[0].copy_(far[0], non_blocking=True))

        def both() -> tuple[float, float]:
            """Seconds until each direction has ended."""
            ends = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            start = torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            side.wait_stream(torch.cuda.current_stream())
            near[0].copy_(far[0], non_blocking=True)
            ends[0].record()
            with torch.cuda.stream(side):
                far[1].copy_(near[1], non_blocking=True)
                ends[1].record()
            torch.cuda.synchronize()
            first, last = sorted(start.elapsed_time(end) / 1e3 for end in ends)
            return first, last

        # What the later one still had to carry when the first ended went at the full rate.
        first, last = min((both() for _ in range(_REPEATS)), key=sum)
        carried = 2 * _COPIED - (last - first) * _COPIED / alone
        staged = self.seconds(lambda: ordinary.copy_(far[0][:_PAGEABLE]))
        return _COPIED / alone, carried / first, _PAGEABLE / staged


def measured_shares(bench: _Bench, device: _devices.Device) -> dict[str, float]:
    """The shares of the peaks of `device` that the current GPU reaches, in (0, 1]."""
    peak = device.peak_flops["bfloat16"]
    shares: dict[str, float] = {}
    for kernel in bench.attention_kernels():
        forward, backward = bench.attention(kernel)
        shares[f"{kernel.share}_forward"] = forward / peak
        shares[f"{kernel.share}_backward"] = backward / peak
    out, both, staged = bench.link()
    shares |= {
        "matrix": bench.matrix() / peak,
        "memory": bench.memory() / device.memory_bandwidth,
        "host_link": out / device.to_host,
        "host_link_both": both / (device.to_host + device.to_device),
        "host_link_pageable": staged / device.to_host,
    }
    return {name: round(min(max(share, 1e-6), 1.0), 4) for name, share in shares.items()}


def calibrate(like: str, target: pathlib.Path) -> dict[str, float]:
    """Measures the current GPU and writes `target`. Raises EbbtideError."""
    try:
        device = _devices.load(like)
        found = json.loads(_devices.path_of(like).read_text())
    except _devices.DeviceFileError as error:
        raise EbbtideError(f"calibrate: --like {like}: {error}") from None
    try:
        import torch
    except ImportError:
        raise EbbtideError("calibrate: torch is not installed: pip install torch") from None
    if not torch.cuda.is_available():
        raise EbbtideError("calibrate: torch sees no GPU here; run this on the machine that has it")
    try:
        bench = _Bench()
        shares, element = measured_shares(bench, device), bench.element()
    except torch.OutOfMemoryError:
        raise EbbtideError("calibrate: it needs 8 GiB of free device memory") from None
    name = torch.cuda.get_device_name()
    source = f"measured by ebbtide calibrate on {name}, {datetime.date.today().isoformat()}"
    found["name"] = name
    found["memory_bytes"] = torch.cuda.mem_get_info()[1]
    for share, value in shares.items():
        found["efficiency"][share] = {"value": value, "source": source}
    found["overhead_seconds"]["element"] = {"value": float(f"{element:.3g}"), "source": source}
    try:
        target.write_text(json.dumps(found, indent=1) + "\n")
    except OSError as error:
        raise EbbtideError(f"calibrate: {target}: {error.strerror}") from None
    return shares
