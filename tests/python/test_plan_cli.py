"""`ebbtide plan` and `ebbtide check`: files in, an arena and its offsets out, exit codes that tell."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import pathlib
import pickle
import random
import re
import signal
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import ROOT, our_lines
from interrupts import hear_ctrl_c

pytest.importorskip("typer", reason="the command needs typer, which is not installed here")

sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _cli  # noqa: E402

PROBLEM = "id,lower,upper,size\na,0,2,40\nb,1,3,60\nc,3,4,100\n"


@dataclasses.dataclass
class Done:
    """What a command printed, and its exit status."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ebbtide(native, tmp_path, monkeypatch, capfd):
    """ebbtide(arguments): runs the command, in this process, in tmp_path."""
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["ebbtide", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            _cli.main()
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def problem(tmp_path) -> pathlib.Path:
    path = tmp_path / "p.csv"
    path.write_text(PROBLEM)
    return path


def rows_of(path: pathlib.Path) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in csv.DictReader(path.read_text().splitlines())}


def snapshot(devices: int = 1) -> dict:
    """As torch.cuda.memory._dump_snapshot writes it, with one buffer from before the trace."""

    def entry(action: str, addr: int, size: int) -> dict:
        frames = [{"filename": "train.py", "line": 1, "name": "step"}]
        return {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": 1,
                "frames": frames}

    trace = [
        entry("alloc", 0x7F0000000000, 1000),
        entry("free_requested", 0x7F0000000000, 1000),
        entry("free_completed", 0x7F0000000000, 1000),
        entry("alloc", 0x7F0000000000, 600),
    ]
    block = {"address": 0x7F0000100000, "size": 4096, "requested_size": 4096,
             "state": "active_allocated", "frames": []}
    segments = [
        {"device": device, "address": 0x7F0000100000, "total_size": 4096, "stream": 0,
         "segment_type": "small", "segment_pool_id": (0, 0), "blocks": [block], "frames": []}
        for device in range(devices)
    ]
    return {"segments": segments, "device_traces": [trace] * devices,
            "allocator_settings": {"expandable_segments": False}, "external_annotations": []}


def test_a_plan_is_printed_written_and_passes_the_check(ebbtide, problem, tmp_path):
    done = ebbtide("plan", "p.csv", "-o", "plan.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"height +100 bytes", done.stdout)
    assert re.search(r"proved optimal +yes", done.stdout)
    rows = rows_of(tmp_path / "plan.csv")
    assert {int(rows["a"]["offset"]), int(rows["b"]["offset"])} in ({0, 40}, {0, 60})
    done = ebbtide("check", "p.csv", "plan.csv", "--capacity", "100")
    assert done.returncode == 0 and re.search(r"valid +yes", done.stdout), done.stderr


def test_json_has_the_documented_keys(ebbtide, problem):
    done = ebbtide("plan", "p.csv", "--json")
    told = json.loads(done.stdout)
    assert told.pop("seconds") >= 0
    assert told == {
        "height": 100, "lower_bound": 100, "optimal": True, "buffers": 3, "status": "optimal"
    }


@pytest.mark.parametrize(("capacity", "code", "statuses"), [
    ("100", 0, ("optimal", "feasible")), ("1KiB", 0, ("optimal", "feasible")),
    ("99", 1, ("infeasible",)),
])
def test_does_it_fit(ebbtide, problem, tmp_path, capacity, code, statuses):
    done = ebbtide("plan", "p.csv", "--capacity", capacity, "--json", "-o", "plan.csv")
    assert done.returncode == code
    assert json.loads(done.stdout)["status"] in statuses
    assert (tmp_path / "plan.csv").exists() == (code == 0)


def test_check_names_the_first_broken_rule_and_both_buffers(ebbtide, problem, tmp_path):
    (tmp_path / "plan.csv").write_text("id,offset\na,0\nb,39\nc,0\n")
    done = ebbtide("check", "p.csv", "plan.csv")
    assert done.returncode == 1
    (line,) = our_lines(done.stderr)
    assert "buffer 'a'" in line and "buffer 'b'" in line and "overlap" in line
    done = ebbtide("check", "p.csv", "missing.csv")
    assert done.returncode == 2 and "missing.csv: No such file" in done.stderr


ARENAS = """id,lower,upper,size,gaps,arena
a,0,10,8192,5-10@0:4096,device
b,5,10,4096,,device
c,0,4,2048,,host
d,2,8,2048,,host
"""


def test_arenas_and_windows_are_planned_checked_and_drawn(ebbtide, tmp_path):
    (tmp_path / "p.csv").write_text(ARENAS)
    capacities = ["--capacity", "device=8KiB", "--capacity", "host=4KiB"]
    done = ebbtide("plan", "p.csv", "--json", "-o", "plan.csv", "--draw", "plan.svg", *capacities)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["height"] == 12288
    assert [(a["name"], a["height"], a["status"]) for a in told["arenas"]] == [
        ("device", 8192, "optimal"),
        ("host", 4096, "optimal"),
    ]
    drawn = (tmp_path / "plan.svg").read_text()
    assert drawn.count("<title>a\n") == 2  # whole, then its lower half
    assert "size 4096 (4.00 KiB)\nlife [5, 10)\noffset 0 in device" in drawn
    done = ebbtide("check", "p.csv", "plan.csv", *capacities)
    assert done.returncode == 0, done.stderr
    assert "arena host" in done.stdout
    done = ebbtide("check", "p.csv", "plan.csv", "--capacity", "host=3KiB")
    assert done.returncode == 1
    assert "above the capacity 3072 of its arena" in done.stderr


@pytest.mark.parametrize(("capacity", "said"), [
    ("8KiB", "the problem has 2 arenas; write e.g. device=8KiB"),
    ("disk=8KiB", "no arena 'disk'; there are device, host"),
])
def test_a_capacity_of_several_arenas_names_one(ebbtide, tmp_path, capacity, said):
    (tmp_path / "p.csv").write_text(ARENAS)
    done = ebbtide("plan", "p.csv", "--capacity", capacity)
    assert (done.returncode, done.stderr) == (2, f"ebbtide error --capacity {capacity}: {said}\n")


def test_packed_input_is_read_by_what_it_is_not_by_its_name(ebbtide, problem, tmp_path):
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(PROBLEM.replace("\n", "\r\n").encode()))
    assert json.loads(ebbtide("plan", "p.csv.gz", "--json").stdout)["height"] == 100
    (tmp_path / "m.gz").write_bytes(gzip.compress(pickle.dumps(snapshot())))
    assert json.loads(ebbtide("plan", "m.gz", "--json").stdout)["buffers"] == 3


def test_a_file_that_unpacks_without_end_is_refused(ebbtide, tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(64 << 20), 9))
    done = ebbtide("plan", "bomb.gz")
    assert done.returncode == 2 and "bomb.gz: unpacks to more than" in done.stderr
    (tmp_path / "cut.gz").write_bytes(gzip.compress(PROBLEM.encode())[:-9])
    done = ebbtide("plan", "cut.gz")
    assert done.returncode == 2 and "cut.gz: cannot be unpacked" in done.stderr


def test_stdin_is_a_problem_too(python_environment, native):
    done = subprocess.run(
        [sys.executable, "-m", "ebbtide", "plan", "-", "--json"], input=PROBLEM.encode(),
        env=python_environment | {"EBBTIDE_NATIVE_DIR": str(native)}, capture_output=True, cwd=ROOT,
    )
    assert json.loads(done.stdout)["height"] == 100, done.stderr


def test_the_plan_can_go_to_stdout(ebbtide, problem, tmp_path):
    done = ebbtide("plan", "p.csv", "-o", "-")
    assert done.stdout.startswith("id,lower,upper,size") and "lower bound" in done.stderr
    (tmp_path / "plan.csv").write_text(done.stdout)
    assert ebbtide("check", "p.csv", "plan.csv").returncode == 0
    assert ebbtide("plan", "p.csv", "-o", "-", "--json").returncode == 2


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_snapshot_becomes_a_problem(ebbtide, tmp_path, protocol):
    (tmp_path / "m.pickle").write_bytes(pickle.dumps(snapshot(), protocol))
    done = ebbtide("plan", "m.pickle", "--json", "-o", "plan.csv")
    assert json.loads(done.stdout)["height"] == 4096 + 1024, done.stderr
    rows = rows_of(tmp_path / "plan.csv")
    lives = {row["id"]: (row["lower"], row["upper"], row["size"]) for row in rows.values()}
    assert lives == {"0": ("0", "1", "1024"), "3": ("3", "4", "1024"),
                     "before-7f0000100000": ("0", "4", "4096")}
    assert ebbtide("check", "m.pickle", "plan.csv").returncode == 0


def test_a_device_of_several_is_chosen(ebbtide, tmp_path):
    (tmp_path / "m.pickle").write_bytes(pickle.dumps(snapshot(devices=2)))
    done = ebbtide("plan", "m.pickle")
    assert done.returncode == 2 and "--device" in done.stderr
    assert ebbtide("plan", "m.pickle", "--device", "1").returncode == 0


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nothing_in_a_pickle_is_executed(ebbtide, tmp_path, protocol):
    content = snapshot() | {"segments": [Malicious(tmp_path / "touched")]}
    (tmp_path / "m.pickle").write_bytes(pickle.dumps(content, protocol))
    done = ebbtide("plan", "m.pickle")
    assert done.returncode == 2 and re.search(r"m\.pickle: byte \d+: .*run code", done.stderr)
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("text", "said"), [
    ("", r"p\.csv:1:1: the header is missing"),
    ("id,lower,upper\n", r"p\.csv:1:1: column 'size'"),
    ("id,lower,upper,size\na,0,1,x\n", r"p\.csv:2:7: size is not an integer: 'x'"),
    ("id,lower,upper,size\na,5,1,4\n", r"p\.csv:2:5: the lifetime is empty"),
])
def test_wrong_input_is_one_line_with_its_place(ebbtide, tmp_path, text, said):
    (tmp_path / "p.csv").write_text(text)
    done = ebbtide("plan", "p.csv")
    assert done.returncode == 2 and done.stdout == ""
    assert re.search(said, done.stderr) and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "named"), [
    (["--capacity", "much"], "--capacity much"),
    (["--time-limit", "nan"], "--time-limit"),
    (["--threads", "0"], "--threads"),
    (["--draw", "plan.png"], ".svg or .html"),
    (["-o", "no/such/folder/plan.csv"], "cannot be written"),
])
def test_a_wrong_option_is_one_line(ebbtide, problem, arguments, named):
    done = ebbtide("plan", "p.csv", *arguments)
    assert done.returncode == 2 and named in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_fixed_buffers_that_overlap_are_infeasible_not_wrong(ebbtide, tmp_path):
    (tmp_path / "p.csv").write_text("id,lower,upper,size,offset\na,0,2,4,0\nb,1,3,4,2\n")
    done = ebbtide("plan", "p.csv", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["status"] == "infeasible"
    assert "'a' (line 2)" in done.stderr and "'b' (line 3)" in done.stderr


def test_the_drawing_shows_every_buffer_and_escapes_its_name(ebbtide, tmp_path):
    long = "\"" + 200_000 * "b"
    (tmp_path / "p.csv").write_text(
        f"id,lower,upper,size,gaps\n</script><b>&\x01,0,9,40,3-5\n{long},0,9,60,\nempty,0,1,0,\n"
    )
    assert ebbtide("plan", "p.csv", "--draw", "d.svg").returncode == 0
    svg = ElementTree.parse(tmp_path / "d.svg").getroot()
    titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 3  # two lives of the first, one of the second
    assert titles[0].startswith("</script><b>&?\nsize 40") and "life [0, 3)" in titles[0]
    assert ebbtide("plan", "p.csv", "--draw", "d.html").returncode == 0
    page = (tmp_path / "d.html").read_text()
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    told = json.loads(data[1])
    assert told["ids"] == ["</script><b>&\x01", "</script><b>&\x01", long]
    assert told["births"] == [0, 5, 0] and told["deaths"] == [3, 9, 9]
    assert "http" not in page  # self-contained


def hard_problem() -> str:
    """One that no search finishes at once."""
    random_ = random.Random(1)
    lines = ["id,lower,upper,size"]
    for i in range(6000):
        birth = random_.randrange(10_000)
        lines.append(f"{i},{birth},{birth + random_.randrange(1, 2000)},{random_.randrange(1, 9999)}")
    return "\n".join(lines) + "\n"


def test_ctrl_c_keeps_the_best_plan_so_far(python_environment, native, tmp_path):
    (tmp_path / "p.csv").write_text(hard_problem())
    command = [sys.executable, "-m", "ebbtide", "plan", str(tmp_path / "p.csv"), "--time-limit",
               "100", "-o", str(tmp_path / "plan.csv"), "--json"]
    program = subprocess.Popen(
        command, env=python_environment | {"EBBTIDE_NATIVE_DIR": str(native)}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear_ctrl_c,
    )
    progress = program.stderr.readline()  # comes after two seconds
    assert re.search(r"planning, \d+ s of 100: height .* gap", progress), progress
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0 and "interrupted" in err, err
    told = json.loads(out)
    assert told["status"] == "feasible" and told["seconds"] < 60
    assert len(rows_of(tmp_path / "plan.csv")) == 6000
