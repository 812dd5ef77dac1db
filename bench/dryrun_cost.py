"""What a dry run costs beside kernels that do nothing: the same program bare, with virtual time, and with Ebbtide.

    python bench/dryrun_cost.py [--rounds 2] [--json FILE]

Bare is `EBBTIDE_DRYRUN_BARE=1`: the stand-ins answer, kernels do nothing, no time is worked out and
no integer computed. Seconds are processor time, of one training step in the steady state and of
the whole process with its imports; each round runs the three one after another. A ratio is the
least of one over the least of the other.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python_shim"))
from ebbtide import _dryrun, _native  # noqa: E402

# name: model, layers, length, checkpointing, variables
PROGRAMS: dict[str, tuple[str, int, int, bool, dict[str, str]]] = {
    "llama": ("llama", 16, 8192, True, {}),
    "gpt2": ("gpt2", 16, 1024, False, {}),
    "qwen3, offload": ("qwen3", 8, 65536, False, {"EBBTIDE_OFFLOAD": "0", "EBBTIDE_HOST": "128GiB"}),
}
WAYS = {
    "bare": {"EBBTIDE_DRYRUN_BARE": "1"},
    "dry run": {},
    "dry run, EBBTIDE=1": {"EBBTIDE": "1"},
}
_FEW, _MANY = 6, 12  # the difference between the two is steady


def child(name: str) -> None:
    import models
    import scenarios
    import torch

    model_name, layers, length, checkpointing, _ = PROGRAMS[name]
    row = scenarios.Scenario(
        name, (length, length), model=model_name, layers=layers, checkpointing=checkpointing
    )
    model = models.make_model(row, torch.device("cuda"), real_values=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    seconds = {}
    for step in range(1, _MANY + 1):
        ids = torch.zeros(1, length, dtype=torch.long, device="cuda")
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds[step] = time.process_time()
    steady = (seconds[_MANY] - seconds[_FEW]) / (_MANY - _FEW)
    print(json.dumps({"step": steady, "process": time.process_time()}))


def measure(name: str, way: str) -> dict[str, float]:
    variables = _dryrun.environment(capacity="1TiB")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EBBTIDE", "PYTORCH_"))}
    environment = kept | variables | {"EBBTIDE_REPORT": "off", "EBBTIDE_NATIVE_DIR": str(_native.folder())}
    environment |= WAYS[way] | PROGRAMS[name][4]
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "python_shim"), str(HERE)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "dryrun_cost.py"), "--child", name],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{name}, {way}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--only", choices=PROGRAMS)
    parser.add_argument("--child", choices=PROGRAMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    rows: list[dict[str, Any]] = []
    print(f"{'program':16} {'way':20} {'step':>9} {'ratio':>6} {'process':>9} {'ratio':>6}")
    for name in [options.only] if options.only else list(PROGRAMS):
        runs = [{way: measure(name, way) for way in WAYS} for _ in range(options.rounds)]
        least = {
            (way, kind): min(run[way][kind] for run in runs) for way in WAYS for kind in ("step", "process")
        }
        for way in WAYS:
            step, process = least[way, "step"], least[way, "process"]
            ratios = step / least["bare", "step"], process / least["bare", "process"]
            print(f"{name:16} {way:20} {step:7.3f} s {ratios[0]:6.2f} {process:7.2f} s {ratios[1]:6.2f}", flush=True)
            rows.append({"program": name, "way": way, "step": step, "process": process, "ratios": ratios})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
