"""Reports of a running program: a picture in a notebook, numbers for loggers, the Trainer's callback."""

from __future__ import annotations

import json

import pytest
from conftest import our_lines

TRAIN = """
import json, torch, ebbtide
layer = torch.nn.Linear(512, 512)
def train(steps):
    for _ in range(steps):
        layer(torch.ones(64, 512)).sum().backward()
train(6)
"""


def run(run_python, native, code, **variables):
    done = run_python(
        TRAIN + code, EBBTIDE="1", EBBTIDE_DEVICES="cpu", EBBTIDE_REPORT="off", EBBTIDE_NATIVE_DIR=str(native), **variables
    )
    assert done.returncode == 0 and our_lines(done.stderr) == [], done.stderr
    return json.loads(done.stdout.splitlines()[-1])


MODULES = """
from ebbtide import _owners
given, owner, during = [], [0], []
def name_owner(text):
    given.append(text)
    return len(given)
def set_owner(number):
    before, owner[0] = owner[0], number
    return before
class Part(torch.nn.Module):
    def forward(self, x):
        during.append(given[owner[0] - 1])
        if x is None:
            raise ValueError
        return x
class Root(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = torch.nn.Sequential(Part(), Part())
    def forward(self, x):
        x = self.parts(x)
        during.append(given[owner[0] - 1])
        return x
_owners._enabled = True
torch.nn.Module.__call__ = _owners.wrap(torch.nn.Module.__call__, _owners.Names(name_owner), set_owner)
first, second = Root(), Root()
first(1), first(1), second(1)
try:
    first(None)
except ValueError:
    pass
"""


@pytest.fixture(scope="module")
def told(native, run_python):
    """What one process says of itself."""
    ask = """
s, told = ebbtide.stats(), ebbtide.report()
print(json.dumps({"text": told, "picture": told._repr_html_(), "scalars": s.scalars(), "live": s.live_bytes,
                  "peak": s.peak_live_bytes, "planned": s.settled_planned_share,
                  "given": given, "during": during, "owner": owner[0]}))
"""
    return run(run_python, native, MODULES + ask)


def test_a_notebook_shows_bars_of_what_is_held(told):
    assert len(told["text"].splitlines()) == 5
    assert "<table>" in told["picture"] and "cpu peak live" in told["picture"]
    assert f"{told['peak'] / (1 << 20):.2f} MiB" in told["picture"]


def test_scalars_are_the_statistics_in_gib(told):
    assert told["scalars"]["ebbtide/live_gib"] * (1 << 30) == told["live"] > 0
    assert told["scalars"]["ebbtide/planned_share"] == told["planned"]
    assert all(type(value) is float for value in told["scalars"].values())


def test_modules_are_named_by_their_paths_and_the_name_before_comes_back(told):
    assert told["given"] == ["Root", "parts", "parts.0", "parts.1", "Root", "Root.parts", "Root.parts.0", "Root.parts.1"]
    assert told["during"][:6] == ["parts.0", "parts.1", "Root"] * 2
    assert told["during"][6:] == ["Root.parts.0", "Root.parts.1", "Root", "parts.0"]
    assert told["owner"] == 0


def test_a_notebook_shows_the_page_of_a_trace_that_is_being_written(run_python, native, tmp_path):
    (picture,) = run(
        run_python,
        native,
        """
while True:  # until the thread that writes the trace has come to its first block
    picture = ebbtide.report()._repr_html_()
    if picture.startswith("<iframe"):
        break
print(json.dumps([picture]))
""",
        EBBTIDE_TRACE=str(tmp_path / "run.ebb"),
    )
    assert picture.startswith('<iframe srcdoc="&lt;!doctype html&gt;') and "run.ebb, cpu" in picture
    assert "ends early" not in picture


def test_the_trainers_logs_hold_our_numbers(run_python, native, needs_transformers, tmp_path):
    history, seen = run(
        run_python,
        native,
        f"""
import transformers
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)
    def forward(self, x, labels=None):
        out = self.layer(x).squeeze(-1)
        return {{"loss": (out - labels).square().mean(), "logits": out}}
class Board(transformers.TrainerCallback):  # stands for TensorBoard's, which comes before the user's own
    seen = []
    def on_log(self, args, state, control, logs=None, **_):
        Board.seen.append(dict(logs))
data = [{{"x": torch.ones(8), "labels": torch.tensor(1.0)}}] * 8
arguments = transformers.TrainingArguments(
    {str(tmp_path)!r}, max_steps=2, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no")
trainer = transformers.Trainer(Model(), arguments, train_dataset=data, callbacks=[Board()])
ebbtide.TrainerCallback.add_to(trainer)
trainer.train()
print(json.dumps([trainer.state.log_history, Board.seen]))
""",
    )
    assert len(history) >= 2
    for logged in (*history, *seen):
        assert logged["ebbtide/live_gib"] > 0
