"""`ebbtide dryrun`: run a program of the real torch on simulated GPUs.

The stand-in CUDA libraries are preloaded into the program; nothing in the program changes. What it
asked of the devices comes back as a JSON report, of which a short summary is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from . import _devices, _foresight, _lone_mail, _native, _ranks, _timeline, _typical
from ._sizes import forgotten_unit

DEFAULT_DEVICE = "h200"

# Preloaded in this order; core comes in as their dependency.
_PRELOADED = (
    "libcudart.so.*",
    "libcuda.so.1",
    "libcublas.so.*",
    "libcublasLt.so.*",
    "libcusolver.so.*",
    "libcusparse.so.*",
    "libcufft.so.*",
    "libnvidia-ml.so.1",
    "libnccl.so.*",
    "libcudnn.so.*",
)
_SIZE = re.compile(r"\d+(\.\d+)? ?([KMGT]i?B?|B)?$")
_GIB = 1 << 30
_ALLOWED_COUNT = range(1, 17)
_CUT_SHORT = (
    "no report: the program ended at once (a signal, a crash, os._exit), without what programs do at exit; "
    "--steps N ends it with a report"
)


class DryrunError(Exception):
    """A wrong setting or a missing part, told in one line."""


def native_folder() -> pathlib.Path:
    """The folder of the stand-in libraries. Raises DryrunError when they are not there."""
    folder = (_native.folder() / "dryrun").resolve()
    if not any(folder.glob(_PRELOADED[0])):
        raise DryrunError(
            f"no stand-in CUDA libraries in {folder}: build Ebbtide where a CUDA build of torch is "
            "installed, or set EBBTIDE_NATIVE_DIR"
        )
    return folder


def environment(
    device: str = DEFAULT_DEVICE,
    capacity: str | None = None,
    report: str | os.PathLike[str] | None = None,
    count: int = 1,
) -> dict[str, str]:
    """The variables under which a program sees `count` simulated devices.

    `capacity` is a size such as "141GB" or "80GiB" (None: the device's own), `report` the file for
    the JSON report. Raises DryrunError for a wrong argument.
    """
    folder = native_folder()
    try:
        file = _devices.path_of(device)
        _devices.load(device)
    except _devices.DeviceFileError as error:
        raise DryrunError(f"--device {device}: {error}") from None
    if capacity is not None and not _SIZE.match(capacity):
        raise DryrunError(
            f"--capacity {capacity}: not a size; write bytes with a unit, "
            "e.g. 141GB, 80GiB or 512MiB"
        )
    if capacity is not None and (hint := forgotten_unit(capacity)):
        raise DryrunError(f"--capacity {capacity}: {hint}")
    if count not in _ALLOWED_COUNT:
        raise DryrunError(
            f"--count {count}: allowed is {_ALLOWED_COUNT.start} to {_ALLOWED_COUNT.stop - 1}"
        )
    libraries = [str(path) for pattern in _PRELOADED for path in sorted(folder.glob(pattern))]
    inherited = os.environ.get("LD_PRELOAD")
    variables = {
        "LD_PRELOAD": ":".join(libraries + ([inherited] if inherited else [])),
        "EBBTIDE_DRYRUN_DEVICE": str(file) if device.endswith(".json") else device,
        "EBBTIDE_DRYRUN_COUNT": str(count),
        # Empty counts as unset: nothing is inherited from a dry run around this one.
        "EBBTIDE_DRYRUN_CAPACITY": capacity or "",
        "EBBTIDE_DRYRUN_REPORT": str(report) if report is not None else "",
        # torch.compile's code generator looks for the driver by path.
        "TRITON_LIBCUDA_PATH": str(folder),
        # A mask that names the machine's real devices means nothing here.
        "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in range(count)),
    }
    return variables


def check_torch() -> None:
    """Raises DryrunError unless a CUDA build of torch is installed beside this package."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise DryrunError("torch is not installed: pip install torch")
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
    if not (folder / "lib" / "libtorch_cuda.so").exists():
        raise DryrunError(
            "this torch is a CPU build: a dry run needs a CUDA build (a GPU is not needed)"
        )


# In a process of its own: the library reads its variables once.
_CHECK = """
import ctypes, sys
text = ctypes.create_string_buffer(4096)
ctypes.CDLL(sys.argv[1]).ebbtide_dryrun_settings_problem(text, ctypes.c_size_t(len(text)))
print(text.value.decode(errors="replace"), end="")
"""


def check_settings(variables: dict[str, str]) -> None:
    """Raises DryrunError for an EBBTIDE_DRYRUN_* variable, of these or inherited, that the simulation cannot read."""
    core = str(native_folder() / "libebbtide_dryrun_core.so")
    settings = os.environ | variables
    settings.pop("LD_PRELOAD", None)
    done = subprocess.run([sys.executable, "-I", "-c", _CHECK, core], env=settings, capture_output=True, text=True)
    if done.returncode or done.stdout:
        raise DryrunError(done.stdout or f"{core} does not load: {done.stderr.strip().splitlines()[-1]}")


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines: each device's capacity and peaks; what was not computed."""
    lines = []
    torch_devices = report.get("torch") or []
    for used in report["devices"]:
        index = used["index"]
        if "rank" in report and not used["peak_bytes"]:
            continue  # another rank's
        line = (
            f"ebbtide dryrun: {report['name']} {index}: "
            f"capacity {used['capacity_bytes'] / _GIB:.2f} GiB, peak held {used['peak_bytes'] / _GIB:.2f} GiB"
        )
        for torch_device in torch_devices:
            if torch_device["index"] == index:
                line += (
                    f", peak live {torch_device['peak_allocated_bytes'] / _GIB:.2f} GiB, "
                    f"{torch_device['retries']} retries, "
                    f"{torch_device['out_of_memory']} out of memory"
                )
        lines.append(line)
    lines += [f"ebbtide dryrun: {line}" for line in _foresight.time_lines(report)]
    lines += [f"ebbtide dryrun: {line}" for line in [_typical.line(report), *_typical.large_line(report)]]
    return "\n".join(lines)


def check_program(name: str) -> None:
    """Raises DryrunError for a script that was written without its interpreter."""
    file = pathlib.Path(name)
    if file.suffix == ".py" and file.is_file() and shutil.which(name) is None:
        raise DryrunError(f"{name}: not a program by itself; write python {name}")


def _check_writable(setting: str, path: str | None) -> None:
    """Before the program runs, and not an hour later. Raises DryrunError."""
    folder = pathlib.Path(path or ".").absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK) or (path and pathlib.Path(path).is_dir()):
        raise DryrunError(f"{setting} {path}: cannot be written; give a file in a folder of yours")


def read_report(path: pathlib.Path) -> dict[str, Any] | None:
    """None where no device was used. Empty where one was, by a program that did not come to its end."""
    if not path.exists():
        return None
    text = path.read_text()
    if not text:
        path.unlink()
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def _wait(program: subprocess.Popen[bytes]) -> int:
    """Its exit status. Ctrl-C is the program's: what it left behind is told."""
    while True:
        try:
            return program.wait()
        except KeyboardInterrupt:
            continue


def _run_once(
    command: list[str], variables: dict[str, str], report: pathlib.Path, timeline: str | None
) -> tuple[int, dict[str, Any] | None]:
    """Exit status and report, see read_report. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="ebbtide-dryrun-") as scratch:
        spans = pathlib.Path(scratch) / "timeline.json"
        variables = variables | {"EBBTIDE_DRYRUN_TIMELINE": str(spans) if timeline else ""}
        report.unlink(missing_ok=True)
        status = _wait(subprocess.Popen(command, env={**os.environ, **variables}))
        if timeline and spans.exists():
            _timeline.write(json.loads(spans.read_text()), pathlib.Path(timeline))
    return (128 - status if status < 0 else status), read_report(report)


def _tell(report: dict[str, Any] | None, device: str) -> None:
    if report is None:
        print("ebbtide dryrun: the program used no device", file=sys.stderr)
        return
    if not report:
        print(f"ebbtide dryrun: {_CUT_SHORT}", file=sys.stderr)
        return
    print(summary(report), file=sys.stderr)
    assumed = _devices.load(device).assumed(among_ranks="rank" in report)
    if assumed and _foresight.time_lines(report):
        print(
            "ebbtide dryrun: of the device's figures, these are assumed, not measured: "
            + ", ".join(assumed),
            file=sys.stderr,
        )


def _run_ranks(
    command: list[str],
    variables: dict[str, str],
    device: str,
    ranks: int,
    rank: str,
    json_path: str | None,
    timeline: str | None,
) -> int:
    chosen = _ranks.chosen(ranks, rank)
    _ranks.check_command(command)
    if timeline and len(chosen) > 1:
        raise DryrunError("--timeline shows one rank: choose it with --rank")
    per_node = _devices.load(device).devices_per_node
    reports: list[dict[str, Any]] = []
    worst = 0
    with tempfile.TemporaryDirectory(prefix="ebbtide-dryrun-") as scratch:
        path = pathlib.Path(scratch) / "report.json"
        # Of a rank that is the only one nobody gets what it hands on.
        mail = scratch if len(chosen) > 1 else ""
        variables = variables | {"EBBTIDE_DRYRUN_REPORT": str(path), _lone_mail.FOLDER: mail}
        for number in chosen:
            told = _ranks.variables(number, ranks, per_node)
            status, report = _run_once(command, variables | told, path, timeline)
            if report:
                report = {"rank": number, "ranks": ranks} | report
                reports.append(report)
            _tell(report, device)
            worst = worst or status
    if json_path and reports:
        written = reports[0] if rank != "all" else {"ranks": ranks, "reports": reports}
        pathlib.Path(json_path).write_text(json.dumps(written, indent=1) + "\n")
    return worst


def run(
    command: list[str],
    device: str = DEFAULT_DEVICE,
    capacity: str | None = None,
    json_path: str | None = None,
    count: int = 1,
    timeline_path: str | None = None,
    steps: int = 0,
    ranks: int | None = None,
    rank: str = "0",
    typical: str = "",
) -> int:
    """Runs `command` on simulated devices, prints the summary, returns the command's exit status.

    `timeline_path`: a file for the streams' timeline, see _timeline. `steps`: the program is ended
    after so many training steps; 0: it is not. `ranks`: of a distributed program, of which `rank` (a number,
    or "all" for one after the other) runs, alone; None: it is none. `typical`: what stands for values
    that are not computed, see _typical.

    Wrong arguments and missing parts are one line on stderr and status 2.
    """
    try:
        if not command:
            raise DryrunError("no command given: ebbtide dryrun -- python train.py")
        if command[0].startswith("-"):
            raise DryrunError(f"{command[0]}: no such option (ebbtide dryrun --help); the program comes after --")
        check_program(command[0])
        check_torch()
        _check_writable("--json", json_path)
        _check_writable("--timeline", timeline_path)
        variables = environment(device, capacity, None, count)
        variables["EBBTIDE_DRYRUN_STEPS"] = str(steps) if steps else ""
        if typical:
            variables["EBBTIDE_DRYRUN_TYPICAL"] = typical
        check_settings(variables)
        if ranks is not None:
            if count != 1:
                raise DryrunError("--count: with --ranks each rank has the device of its number")
            if not any(native_folder().glob("libnccl.so.*")):
                raise DryrunError("--ranks: this torch came without NCCL's library; pip install torch")
            variables |= environment(device, capacity, None, _local_devices(device, ranks))
            return _run_ranks(command, variables, device, ranks, rank, json_path, timeline_path)
        with tempfile.TemporaryDirectory(prefix="ebbtide-dryrun-") as scratch:
            path = pathlib.Path(json_path or pathlib.Path(scratch) / "report.json").absolute()
            variables |= {"EBBTIDE_DRYRUN_REPORT": str(path), "EBBTIDE_DRYRUN_RANK": ""}
            status, report = _run_once(command, variables, path, timeline_path)
        _tell(report, device)
        return status
    except (DryrunError, _ranks.RanksError, OSError) as error:
        text = str(error).replace("EBBTIDE_DRYRUN_TYPICAL=", "--typical ") if typical else str(error)
        print(f"ebbtide dryrun: {text}", file=sys.stderr)
        return 2


def _local_devices(device: str, ranks: int) -> int:
    return max(1, min(ranks, _devices.load(device).devices_per_node))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="ebbtide dryrun",
        description="Run a torch program on simulated GPUs, on a machine without one.",
    )
    parser.add_argument(
        "--device",
        default=DEFAULT_DEVICE,
        help=f"one of {', '.join(_devices.names())}, or the path of a device file",
    )
    parser.add_argument(
        "--capacity", help="memory of each device, e.g. 141GB (default: the device's own)"
    )
    parser.add_argument("--count", type=int, default=1, help="number of devices")
    parser.add_argument("--json", metavar="FILE", help="also write the whole report there")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program, after --")
    chosen = parser.parse_args(arguments)
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    return run(command, chosen.device, chosen.capacity, chosen.json, chosen.count)


if __name__ == "__main__":
    sys.exit(main())
