"""What the marks cost: a module's call inside a model, with torch's own `Module.__call__`, with ours, and with the
names of modules that a trace gets.

Prints all in microseconds, and the differences: the smallest of many short samples, taken in turns. With names the
library is called, but no trace is written: recording an event is in bench/profiler_bench.cpp.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python_shim"))
from ebbtide import _marks, _owners  # noqa: E402

CALLS = 2000


def sample(net: torch.nn.Module, x: torch.Tensor) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        net(x)
    return (time.perf_counter() - start) / CALLS * 1e6


class Model(torch.nn.Module):
    """Takes a sample of a call inside it: there the marks only look whether they are inside a model."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> float:
        return sample(self.layer, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100, help="of each kind (default: %(default)s)")
    samples = parser.parse_args().samples
    model, x = Model(), torch.ones(1)
    torch_call = torch.nn.Module.__call__
    _marks.install(lambda kind, source, extents: 0)
    our_call = torch.nn.Module.__call__
    _owners.install()
    named_call = torch.nn.Module.__call__
    least = dict.fromkeys((torch_call, our_call, named_call), float("inf"))
    for _ in range(samples):
        for call in least:
            torch.nn.Module.__call__ = call
            least[call] = min(least[call], model(x))
    plain, marked, named = least.values()
    print(f"torch {plain:.3f} us, with marks {marked:.3f} us: {marked - plain:.3f} us a call")
    print(f"with names as well {named:.3f} us: {named - marked:.3f} us a call")


if __name__ == "__main__":
    main()
