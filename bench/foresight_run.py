"""One program of foresight_check.py, on whatever device there is: prints its peaks and the seconds of its steps as JSON.

    python bench/foresight_run.py '{"name": "llama-8k", "lengths": [8192, 8192], ...}'
"""

from __future__ import annotations

import json
import sys
from typing import Any

import json_file
import models
import torch
from scenarios import Scenario

_STEPS = 5
_LAST = 3  # steps that count: the first ones load kernels and make the optimizer's states
_HOST = "8GiB"  # of pinned memory: what is free differs from run to run, and with it what is swapped


def train(row: Scenario) -> dict[str, Any]:
    device = torch.device("cuda")
    model = models.make_model(row, device, real_values=True)
    if row.offload >= 0:
        import ebbtide

        ebbtide.offload(model, alpha=row.offload, host=_HOST, strict=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    length = row.lengths[1]
    moments = []
    for _ in range(_STEPS + 1):
        moments.append(torch.cuda.Event(enable_timing=True))
        moments[-1].record()
        if len(moments) > _STEPS:
            break
        ids = torch.randint(0, row.vocabulary, (1, length), device=device)
        out = model(input_ids=ids, labels=ids)
        (out if torch.is_tensor(out) else out.loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    seconds = [a.elapsed_time(b) / 1e3 for a, b in zip(moments, moments[1:], strict=False)]
    return {
        "tokens": length,
        "held_bytes": torch.cuda.max_memory_reserved(),
        "live_bytes": torch.cuda.max_memory_allocated(),
        "step_seconds": sum(seconds[-_LAST:]) / _LAST,
        "seconds": seconds,  # of each step
    }


if __name__ == "__main__":
    fields: dict[str, Any] = json.loads(sys.argv[1])
    fields |= {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    print(json_file.text(train(Scenario(**fields))))
