"""Reports of a running program: a picture in a notebook, numbers for loggers, the Trainer's callback."""

from __future__ import annotations

import json

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


def test_a_notebook_shows_bars_of_what_is_held(run_python, native):
    text, picture, peak = run(
        run_python,
        native,
        "told = ebbtide.report(); print(json.dumps([told, told._repr_html_(), ebbtide.stats().peak_live_bytes]))",
    )
    assert len(text.splitlines()) == 5 and "<table>" in picture and "cpu peak live" in picture
    assert f"{peak / (1 << 20):.2f} MiB" in picture


def test_a_notebook_shows_the_page_of_a_trace_that_is_being_written(run_python, native, tmp_path):
    (picture,) = run(
        run_python,
        native,
        "import time; time.sleep(0.1); print(json.dumps([ebbtide.report()._repr_html_()]))",
        EBBTIDE_TRACE=str(tmp_path / "run.ebb"),
    )
    assert picture.startswith('<iframe srcdoc="&lt;!doctype html&gt;') and "run.ebb, cpu" in picture
    assert "ends early" not in picture


def test_scalars_are_the_statistics_in_gib(run_python, native):
    scalars, live, planned = run(
        run_python,
        native,
        "s = ebbtide.stats(); print(json.dumps([s.scalars(), s.live_bytes, s.settled_planned_share]))",
    )
    assert scalars["ebbtide/live_gib"] * (1 << 30) == live > 0
    assert scalars["ebbtide/planned_share"] == planned
    assert all(type(value) is float for value in scalars.values())


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


def test_modules_are_named_by_their_paths_and_the_name_before_comes_back(run_python, native):
    names, during, after = run(
        run_python,
        native,
        """
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
print(json.dumps([given, during, owner[0]]))
""",
    )
    assert names == ["Root", "parts", "parts.0", "parts.1", "Root", "Root.parts", "Root.parts.0", "Root.parts.1"]
    assert during[:6] == ["parts.0", "parts.1", "Root"] * 2
    assert during[6:] == ["Root.parts.0", "Root.parts.1", "Root", "parts.0"]
    assert after == 0
