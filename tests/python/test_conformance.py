"""torch's memory functions over torch's own allocator, over Ebbtide before a plan and under one: the
same assertions (programs/conformance.py), on simulated devices."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
from conftest import PROGRAMS, our_lines
from dryrun_run import simulated_environment

ALLOCATORS = {"native": "0", "observing": "observe", "planned": "1"}
# A process each. Without a plan the groups do not disturb one another.
WHOLE = ("memory ends", "statistics", "snapshots", "streams", "judged", "judged limits", "pools", "graphs")
RUNS = [
    ("native", WHOLE),
    ("observing", WHOLE),
    ("planned", ("memory ends",)),
    ("planned", ("statistics",)),
    ("planned", ("snapshots", "streams", "graphs")),
    ("planned", ("judged",)),
    ("planned", ("judged limits",)),
    ("planned", ("pools",)),
]
SETTINGS = (
    "expandable_segments:True",
    "expandable_segments:False",
    "max_split_size_mb:20,expandable_segments:False",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:4,expandable_segments:False",
)


def complaints(stderr: str) -> list[str]:
    """Our lines, but for what torch asks of the simulated device and it does not have."""
    return [line for line in our_lines(stderr) if "is not simulated" not in line]


def conform(run_python, native, tmp_path: pathlib.Path, allocator: str, *groups: str, **variables: str) -> None:
    environment = simulated_environment(tmp_path, capacity="2GiB", count=2)
    done = run_python(
        [str(PROGRAMS / "conformance.py"), *groups],
        **environment,
        EBBTIDE=ALLOCATORS[allocator],
        EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
        **variables,
    )
    assert done.returncode == 0, done.stderr
    assert complaints(done.stderr) == []
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows, "no check ran"
    wrong = "\n".join(f"{row['check']} {row['wrong']}" for row in rows if row["wrong"])
    assert not wrong, wrong
    served = {row["check"]: row["arena"] > 0 for row in rows if row["served"] is not None}
    assert served == {
        row["check"]: row["served"] and allocator == "planned" for row in rows if row["served"] is not None
    }


@pytest.mark.parametrize(("allocator", "groups"), RUNS, ids=lambda part: part if isinstance(part, str) else "+".join(part))
def test_memory_functions(run_python, native, tmp_path, allocator, groups):
    conform(run_python, native, tmp_path, allocator, *groups)


@pytest.mark.parametrize("allocator", ("native", "planned"))
def test_without_a_cache(run_python, native, tmp_path, allocator):
    conform(run_python, native, tmp_path, allocator, "uncached", PYTORCH_NO_CUDA_MEMORY_CACHING="1")


CHILDREN = """
import atexit, multiprocessing, os, sys
import ebbtide, torch

def numbers(start):
    return torch.arange(start, start + (1 << 20), device="cuda")

def spawned(queue):
    tensor = numbers(3)
    queue.put([tensor[4].item(), torch.cuda.memory_allocated()])

class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 16
    def __getitem__(self, index):
        return torch.full((1 << 18,), index * index)

def main():
    for _ in range(5):
        ebbtide.step()
        kept, gone = numbers(1), numbers(2)
        del gone
        ebbtide.wait_for_plans()
    child = os.fork()  # a child has what was alive, touches none of it, and ends as it likes
    if child == 0:
        del kept
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    loader = torch.utils.data.DataLoader(Squares(), batch_size=4, num_workers=2, pin_memory=True)
    sums = []
    for batch in loader:
        ebbtide.step()
        sums.append(batch.to("cuda", non_blocking=True).sum().item() >> 18)
    assert sums == [14, 126, 366, 734], sums
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=spawned, args=(queue,))
    process.start()
    assert queue.get(timeout=100) == [7, 8 << 20]
    process.join()
    assert process.exitcode == 0
    assert kept[5].item() == 6
    # At exit tensors are alive everywhere, and more come and go after ours has finished.
    torch.kept = [kept, numbers(9)]
    atexit.register(lambda: torch.kept.append(numbers(4)))
    print("done")

if __name__ == "__main__":
    parent = os.getpid()
    atexit.register(lambda: numbers(8) if os.getpid() == parent else None)
    main()
"""


@pytest.mark.parametrize("allocator", ("native", "planned"))
def test_children_and_exit(run_python, native, tmp_path, allocator):
    program = tmp_path / "children.py"
    program.write_text(CHILDREN)
    environment = simulated_environment(tmp_path, capacity="2GiB")
    done = run_python(
        [str(program)], **environment, EBBTIDE=ALLOCATORS[allocator], EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off"
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert complaints(done.stderr) == []


# Expandable segments give file descriptors to other processes, others handles.
@pytest.mark.parametrize(("allocator", "expandable"), [("native", False), ("planned", False), ("planned", True)])
def test_processes_share_tensors(run_python, native, tmp_path, allocator, expandable):
    done = run_python(
        [str(PROGRAMS / "sharing.py")],
        **simulated_environment(tmp_path, capacity="2GiB"),
        EBBTIDE=ALLOCATORS[allocator], EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
        PYTORCH_CUDA_ALLOC_CONF=f"expandable_segments:{expandable}",
    )
    assert done.returncode == 0, done.stderr
    assert complaints(done.stderr) == []
    served = json.loads(done.stdout)
    assert (served["here"] > 1, served["there"] > 0) == (allocator == "planned",) * 2


GRAPHS = """
import ebbtide, torch

def numbers(value):
    return torch.full((1 << 20,), value, dtype=torch.int32, device="cuda")

def receive(queue, answers):
    answers.put(queue.get().sum().item())

def main():
    static = numbers(1)
    for iteration in range(6):
        ebbtide.step()
        first = numbers(iteration)  # the stream of a round's first request is the one that is planned
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            (static * 2).add_(1)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            result = (static * 2).add_(1)
        around = numbers(7)
        static.fill_(iteration)
        graph.replay()
        assert bool((result == 2 * iteration + 1).all()) and bool((around == 7).all())
        assert bool((first == iteration).all())
        del around, first
        ebbtide.wait_for_plans()
    assert not ebbtide.is_active() or ebbtide.stats(0).planned_bytes > 0
    shared = numbers(3)
    context = torch.multiprocessing.get_context("spawn")
    queue, answers = context.Queue(), context.Queue()
    process = context.Process(target=receive, args=(queue, answers))
    process.start()
    queue.put(shared)
    assert answers.get(timeout=100) == 3 << 20
    process.join()
    print("done")

if __name__ == "__main__":
    main()
"""


def replay_and_share(run_python, native, tmp_path, allocator, **environment):
    program = tmp_path / "graphs.py"
    program.write_text(GRAPHS)
    done = run_python(
        [str(program)], **environment, EBBTIDE=ALLOCATORS[allocator], EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off"
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("allocator", ("native", "planned"))
def test_graphs_replay_and_processes_share_tensors(run_python, native, tmp_path, allocator):
    replay_and_share(run_python, native, tmp_path, allocator, **simulated_environment(tmp_path, capacity="2GiB"))


@pytest.mark.gpu
@pytest.mark.parametrize("allocator", ("native", "planned"))
def test_on_a_gpu_graphs_replay_and_processes_share_tensors(run_python, native, tmp_path, allocator):
    replay_and_share(run_python, native, tmp_path, allocator)


OUT_OF_MEMORY = """
import ebbtide, torch
MIB = 1 << 20
def take(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")
parameter = take(200)
for _ in range(4):
    ebbtide.step()
    activation, other = take(300), take(100)
    ebbtide.wait_for_plans()
for asked in (700, 5000):
    try:
        take(asked)
    except torch.OutOfMemoryError as error:
        print(error)
"""


def test_out_of_memory_says_what_is_free_and_who_holds_the_rest(run_python, native, tmp_path):
    environment = simulated_environment(tmp_path, capacity="1GiB")
    report = tmp_path / "oom-%p.txt"
    done = run_python(
        OUT_OF_MEMORY, **environment, EBBTIDE="1", EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
        EBBTIDE_OOM=str(report),
    )
    assert done.returncode == 0, done.stderr
    first, ours, second, too_large = done.stdout.splitlines()
    assert first.startswith("CUDA out of memory. Tried to allocate 700.00 MiB.")
    assert "Of the allocated memory 600.00 MiB is allocated by PyTorch" in first
    assert ours.startswith("Ebbtide: 700.00 MiB asked for in round 4; the largest free block is ")
    for part in (" pieces that do not fit.", "Largest live blocks: 300.00 MiB (request 0 of round ",
                 ", in the arena)", "The arena holds ", "are alive, and gave ", "What to change: "):
        assert part in ours, part
    assert "200.00 MiB (made before the first iteration" in ours
    assert "activation checkpointing" in ours
    assert second.startswith("CUDA out of memory. Tried to allocate 4.88 GiB.")
    assert "the request alone is larger than the device" in too_large
    # One report a process, named in the error: the last failure's.
    (written,) = tmp_path.glob("oom-*.txt")
    assert f"The whole report: {written} (EBBTIDE_OOM)." in too_large
    text = written.read_text()
    assert text.startswith("ebbtide: out of memory on cuda:0\n\nCUDA out of memory. Tried to allocate 4.88 GiB.")
    split = re.search(r"requested (.*) \| rounding (.*) \| stranded (.*) \| cached and fitting (.*) \| not torch (.*) "
                      r"\| free on the device (.*)\n  = capacity (.*)\n", text)
    *parts, capacity = [float(size.removesuffix(" MiB").removesuffix(" GiB").removesuffix(" B")) for size in split.groups()]
    assert (parts[0], capacity) == (600, 1) and abs(sum(parts) - 1024) < 0.05
    for line in ("Asked for: 4.88 GiB in round 4", "   300.00 MiB  request 0 of round ", "  a plan: is in force, ", "  offload: 400.00 MiB of what"):
        assert line in text, (line, text)


def test_no_report_of_out_of_memory_is_written_where_none_is_wanted(run_python, native, tmp_path):
    environment = simulated_environment(tmp_path, capacity="1GiB")
    code = f"import os; os.chdir({str(tmp_path)!r})\n" + OUT_OF_MEMORY
    for setting, found in (("off", 0), ("", 1)):
        done = run_python(code, **environment, EBBTIDE="1", EBBTIDE_NATIVE_DIR=str(native), EBBTIDE_REPORT="off",
                          EBBTIDE_OOM=setting)
        assert done.returncode == 0, done.stderr
        assert len(list(tmp_path.glob("ebbtide-oom-*.txt"))) == found
        assert ("The whole report" in done.stdout) == bool(found)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("allocator", ("native", "planned"))
def test_memory_functions_with_settings(run_python, native, tmp_path, allocator, settings):
    # A switch that is off, as torch reads it.
    switched_off = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "0"}
    conform(run_python, native, tmp_path, allocator, "settings", PYTORCH_CUDA_ALLOC_CONF=settings, **switched_off)
