"""Operators that take functions, on a simulated device: torch calls them by dispatch key, in Python."""

from __future__ import annotations

import os

from dryrun_run import ROOT, simulate


def test_flex_attention_and_cond_run_as_they_do_elsewhere(tmp_path):
    done = simulate(
        """
from torch.nn.attention.flex_attention import flex_attention
q = torch.empty(1, 2, 128, 64, device="cuda", requires_grad=True)
out = torch.compile(flex_attention, backend="eager", fullgraph=True)(q, q, q)
out.sum().backward()
chosen = torch.cond(torch.ones((), device="cuda") > 0, lambda x: x[:3].clone(), lambda x: x.clone(), (q.detach()[0, 0],))
print(json.dumps([list(out.shape), list(q.grad.shape), list(chosen.shape)]))
""",
        tmp_path,
        TORCH_DEVICE_BACKEND_AUTOLOAD="1",
        PYTHONPATH=str(ROOT / "python_shim"),
        EBBTIDE_NATIVE_DIR=os.environ.get("EBBTIDE_NATIVE_DIR", ""),
    )
    assert done.answer() == [[1, 2, 128, 64], [1, 2, 128, 64], [3, 64]]
