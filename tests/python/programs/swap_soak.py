"""Saves, overwrites and frees random tensors through a SwapStore, and asks for them in random order.

Every tensor is made by kernels on the compute stream, and its memory is used again at once, as a
training step does. Prints JSON: how many came back with other bits, and the store's statistics.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random

import torch

from ebbtide._offload._swap_store import SwapStore

MIB = 1 << 20


def made(seed: int, count: int, device: str) -> torch.Tensor:
    """The same bits for the same seed, by work that takes its time on a device."""
    tensor = torch.arange(count, device=device, dtype=torch.int32) + seed
    for _ in range(4):
        tensor = tensor * 1664525 + 1013904223
    return tensor


def differs(found: torch.Tensor, seed: int) -> torch.Tensor:
    return (found != made(seed, found.numel(), str(found.device))).any()


def soak(
    store: SwapStore, device: str, steps: int, largest: int, chance: random.Random
) -> list[torch.Tensor]:
    waiting, wrong = [], []
    for step in range(steps):
        sizes = [chance.randrange(1, largest) for _ in range(chance.randrange(1, 4))]
        group = [made(step * 8 + number, size, device) for number, size in enumerate(sizes)]
        for number, saved in enumerate(store.save_all(group)):
            waiting.append((step * 8 + number, saved))
        del group
        store.layer_ended()
        if device == "cuda" and chance.random() < 0.3:
            torch.cuda._sleep(chance.randrange(2_000_000))
        while len(waiting) > 24 or (waiting and chance.random() < 0.3):
            seed, saved = waiting.pop(chance.randrange(len(waiting)))
            if waiting and chance.random() < 0.5:
                waiting[chance.randrange(len(waiting))][1].prefetch()
            if chance.random() < 0.8:  # the others are abandoned
                wrong.append(differs(saved.get(), seed))
            saved.release()
    return wrong + [differs(saved.get(), seed) for seed, saved in waiting]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--side-stream", action="store_true")
    options = parser.parse_args()
    store = SwapStore(options.device, 256 * MIB)
    largest = (8 if options.device == "cuda" else 1) * MIB // 4
    chance = random.Random(5)
    if options.side_stream:
        with torch.cuda.stream(torch.cuda.Stream()):
            wrong = soak(store, options.device, options.steps, largest, chance)
            torch.cuda.current_stream().synchronize()
    else:
        wrong = soak(store, options.device, options.steps, largest, chance)
    store.let_go()
    answer = {"checked": len(wrong), "wrong": sum(int(each) for each in wrong)}
    print(json.dumps(answer | dataclasses.asdict(store.stats())))
    store.close()


if __name__ == "__main__":
    main()
