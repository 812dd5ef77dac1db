"""Trains MEMO's 7B GPT on one sequence, tensor and sequence parallel over all ranks; prints one JSON object.

    ebbtide dryrun --device a800-80g --ranks 8 -- python bench/memo_train.py --way memo --tokens 1048576 --host 2TB
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os

import ebbtide
import parallel_gpt
import torch
import torch.distributed as dist
from ebbtide._sizes import parse_size

# MEMO (arXiv 2407.12117), section 5: 7B, GPT vocabulary.
_SHAPES = parallel_gpt.Shapes(layers=32, hidden=4096, mlp=16384, heads=32, vocabulary=50257)
_PIECE = 1024  # tokens of this rank in a mini-sequence; with those of the others, 8192
_STEPS = {"memo": 5, "checkpointing": 2}  # MEMO's alpha is there from the fourth on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=_STEPS, default="memo")
    parser.add_argument("--tokens", type=int, default=1 << 20)
    parser.add_argument("--host", default="2TB", help="host memory of all ranks together")
    parser.add_argument("--layers", type=int, default=_SHAPES.layers)
    parser.add_argument("--steps", type=int, help="default: as many as the way of training needs to settle")
    options = parser.parse_args()
    dist.init_process_group("nccl")
    ranks = dist.get_world_size()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        shapes = dataclasses.replace(_SHAPES, layers=options.layers)
        model = parallel_gpt.Gpt(shapes, ranks, checkpointing=options.way == "checkpointing")
    if options.way == "memo":
        host = (parse_size(options.host) or 0) // ranks
        ebbtide.offload(model, alpha="memo", host=host, mini_sequence=_PIECE, keep_last=2, strict=True)
    optimizer = parallel_gpt.MixedAdamW(model)
    ids = torch.zeros(1, options.tokens // ranks, dtype=torch.long, device="cuda")
    for _ in range(options.steps or _STEPS[options.way]):
        model(ids, ids).backward()
        optimizer.step()
    found = {"live_bytes": torch.cuda.max_memory_allocated(), "tokens": options.tokens}
    if options.way == "memo":
        report = ebbtide.stats().offload.models[0]
        found |= {"alpha": report.alpha, "limit": report.limit, "host_bytes": report.host.peak_live_bytes}
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
