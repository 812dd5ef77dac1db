"""The hints that reach the engine: which, in which order, and which not."""

from __future__ import annotations

import pytest

# Records marks in Python instead of sending them to a library; the rest is the real thing.
PRELUDE = """
import warnings, torch
from ebbtide import _marks
from ebbtide._abi import Mark
marks, shapes = [], []
def record(kind, source, extents):
    marks.append((Mark(kind).name, source))
    if Mark(kind) in (Mark.FORWARD, Mark.INFERENCE): shapes.append(extents)
    return 0
_marks.install(record)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    def forward(self, x):
        return self.parts(x).sum()

net, x = Net(), torch.ones(2, 4)
names = lambda: [kind for kind, _ in marks]
"""

CASES = {
    "only the root module is marked": """
        net(x)
        assert marks == [("FORWARD", id(net))], marks
    """,
    "without gradients it is an inference": """
        with torch.no_grad(): net(x)
        with torch.inference_mode(): net(x)
        assert names() == ["INFERENCE", "INFERENCE"], marks
    """,
    "the shapes of the input come with the mark": """
        net(x)
        class Batch(Net):
            def forward(self, ids, labels=None, extra=None): return self.parts(ids).sum()
        batch = Batch()
        batch(x, labels=torch.ones(2, 3), extra={"mask": [torch.ones(5)]})
        batch(torch.ones(1, 2, 3, 4), torch.ones(2, 3, 4, 4), torch.ones(7))
        meta = torch.ones(3, 4, device="meta")
        net.to("meta")(meta)
        assert shapes == [[2, 4], [2, 4, 2, 3], [1, 2, 3, 4, 2, 3, 4, 4], [3, 4]], shapes
    """,
    "an exception inside does not lose the root": """
        class Broken(Net):
            error = ValueError
            def forward(self, x):
                self.parts(x)
                raise self.error
        broken = Broken()
        for Broken.error in (ValueError, KeyboardInterrupt):
            try: broken(x)
            except (ValueError, KeyboardInterrupt): pass
        net(x)
        assert [source for _, source in marks] == [id(broken), id(broken), id(net)], marks
    """,
    "a form stands above the source's address": """
        _marks.set_form(lambda extents: (extents[0], [7, 5]))
        net(x)
        assert marks == [("FORWARD", len(x) << 48 | id(net))], marks
    """,
    "the tokens of pieces stand behind the shapes": """
        _marks.set_form(lambda extents: (1, [7, 5]))
        net(x)
        assert shapes == [[2, 4, -7, -5]], shapes
        _marks.set_form(lambda extents: (1, list(range(1, 100))))
        net(x)
        assert len(shapes[1]) == 16 and shapes[1][:3] == [2, 4, -1], shapes
    """,
    "an optimizer is marked on both sides": """
        optimizer = torch.optim.AdamW(net.parameters())
        net(x).backward()
        optimizer.step()
        assert marks[1:] == [("OPTIMIZER", id(optimizer)), ("OPTIMIZER_END", id(optimizer))], marks
    """,
    "recomputation in backward is not marked": """
        from torch.utils.checkpoint import checkpoint
        calls = []
        net.parts.register_forward_pre_hook(lambda *_: calls.append(1))
        for reentrant in (True, False):
            marks.clear()
            calls.clear()
            inputs = torch.ones(2, 4, requires_grad=True)
            loss = checkpoint(net, inputs, use_reentrant=reentrant)
            loss.backward()
            assert len(calls) == 2, "nothing was recomputed"
            assert len(marks) == 1, marks
    """,
    "an optimizer fused into backward is not marked": """
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        net.parts[0].weight.register_post_accumulate_grad_hook(lambda _: optimizer.step())
        net(x).backward()
        assert names() == ["FORWARD"], marks
    """,
    "torch.compile traces one graph without a break or a warning": """
        warnings.simplefilter("error", UserWarning)
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        for _ in range(3): compiled(x).backward()
        assert names() == ["FORWARD"] * 3, marks
        marks.clear()
        @torch.compile(backend="eager", fullgraph=True)
        def whole(x): return net(x) + 1
        whole(x).backward()
        assert marks == [], marks
    """,
    "a module compiled in place is marked as itself": """
        net.compile(backend="eager", fullgraph=True)
        net(x).backward()
        assert marks == [("FORWARD", id(net))], marks
    """,
    "tracing and scripting still work": """
        torch.fx.symbolic_trace(net)(x)
        torch.jit.trace(net, x)(x)
        torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 4)))(x)
        torch.export.export(net, (x,)).module()(x)
    """,
    "every thread has its own root": """
        import threading
        class Outer(torch.nn.Module):
            def forward(self, x):
                worker = threading.Thread(target=net, args=(x,))
                worker.start(); worker.join()
                return net(x)
        outer = Outer()
        outer(x)
        assert [source for _, source in marks] == [id(outer), id(net)], marks
    """,
    "nothing is marked after disable": """
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        _marks.disable()
        net(x).backward(); optimizer.step()
        assert marks == [], marks
    """,
    "a model can still be copied and saved": """
        import copy, io
        net(x)
        torch.save(copy.deepcopy(net).state_dict(), io.BytesIO())
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_marks(run_python, case):
    import textwrap

    done = run_python(PRELUDE + textwrap.dedent(CASES[case]))
    assert done.returncode == 0, done.stderr


def test_a_call_inside_the_model_costs_one_hook_and_no_more(run_python):
    # Counted, not timed: bench/mark_cost.py prints what it takes.
    code = """
import sys, torch
net, x = torch.nn.Identity(), torch.ones(1)
def calls():
    seen = []
    sys.setprofile(lambda frame, event, what: seen.append(event))
    net(x)
    sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in seen)
class Root(torch.nn.Module):
    def forward(self): return calls()
root = Root()
plain = root()
from ebbtide import _marks
_marks.install(lambda kind, source, extents: 0)
print(root() - plain)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert 0 <= int(done.stdout) <= 3
