"""`ebbtide calibrate` on simulated devices: it finds the shares of the device's own file."""

from __future__ import annotations

import json
import os

import pytest
from dryrun_run import ROOT, simulate
from ebbtide import _calibrate
from ebbtide._errors import EbbtideError


FILES = ROOT / "dryrun" / "devices"


@pytest.mark.parametrize("device", ["a800-80g", "h200"])
def test_on_a_simulated_device_it_recovers_the_files_own_numbers(tmp_path, device):
    target = tmp_path / "mine.json"
    done = simulate(
        f"""
        import pathlib
        from ebbtide import _calibrate
        print(json.dumps(_calibrate.calibrate("{device}", pathlib.Path("{target}"))))
        """,
        tmp_path,
        device=device,
        PYTHONPATH=str(ROOT / "python_shim"),
        EBBTIDE_NATIVE_DIR=os.environ.get("EBBTIDE_NATIVE_DIR", ""),
    )
    shares = done.answer()
    written = json.loads(target.read_text())["efficiency"]
    original = json.loads((FILES / f"{device}.json").read_text())
    for name, share in shares.items():
        assert share == pytest.approx(original["efficiency"][name]["value"], rel=0.03), name
        assert written[name]["value"] == share and "measured" in written[name]["source"]
    assert set(written) == set(original["efficiency"])
    # cuDNN's attention where torch takes it by itself
    assert {name for name in shares if "attention" in name} == {name for name in written if "attention" in name}
    times = [json.loads(path.read_text())["overhead_seconds"]["element"] for path in (target, FILES / f"{device}.json")]
    assert times[0]["value"] == pytest.approx(times[1]["value"], rel=0.03) and "measured" in times[0]["source"]


def test_an_unknown_device_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_DRYRUN_DEVICES", str(ROOT / "dryrun" / "devices"))
    with pytest.raises(EbbtideError, match="--like h300: unknown device; allowed: a100-40g"):
        _calibrate.calibrate("h300", tmp_path / "mine.json")
