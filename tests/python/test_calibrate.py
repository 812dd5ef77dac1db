"""`ebbtide calibrate` on simulated devices: it finds the shares of the device's own file."""

from __future__ import annotations

import json
import os
import types

import pytest
from dryrun_run import ROOT, simulate
from ebbtide import _calibrate
from ebbtide._errors import EbbtideError


FILES = ROOT / "dryrun" / "devices"
EXACT = 0.0015  # shares are written with four digits, and copies begin with a latency


class Device:
    """In place of torch: a device that slows down for good once it has worked for `quick` seconds."""

    def __init__(self, quick: float) -> None:
        self.now, self.quick, self.works = 0.0, quick, 0
        self.cuda = types.SimpleNamespace(Event=self.event, synchronize=lambda: None)

    def event(self, enable_timing: bool) -> types.SimpleNamespace:
        moment = types.SimpleNamespace(at=0.0)
        moment.record = lambda: setattr(moment, "at", self.now)
        moment.elapsed_time = lambda later: 1e3 * (later.at - moment.at)
        return moment

    def work(self) -> None:
        self.works += 1
        self.now += 1e-3 if self.now < self.quick else 2e-3


def bench(device: Device) -> _calibrate._Bench:
    made = object.__new__(_calibrate._Bench)
    made._torch = device
    return made


def test_what_goes_on_for_long_is_measured_where_the_device_has_slowed_down():
    device = Device(quick=0.4)
    assert bench(device).sustained(device.work) == pytest.approx(2e-3)
    assert 0.9 < device.now < 2.1


def test_what_is_short_is_queued_many_times_between_two_events():
    device = Device(quick=1e9)
    assert bench(device).seconds(device.work) == pytest.approx(1e-3)
    assert device.works == 3 + 3 * 20


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
        assert share == pytest.approx(original["efficiency"][name]["value"], rel=EXACT), name
        assert written[name]["value"] == share and "measured" in written[name]["source"]
    assert set(written) == set(original["efficiency"])
    # cuDNN's attention where torch takes it by itself
    assert {name for name in shares if "attention" in name} == {name for name in written if "attention" in name}
    times = [json.loads(path.read_text())["overhead_seconds"]["element"] for path in (target, FILES / f"{device}.json")]
    assert times[0]["value"] == pytest.approx(times[1]["value"], rel=EXACT) and "measured" in times[0]["source"]


def test_an_unknown_device_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_DRYRUN_DEVICES", str(ROOT / "dryrun" / "devices"))
    with pytest.raises(EbbtideError, match="--like h300: unknown device; allowed: a100-40g"):
        _calibrate.calibrate("h300", tmp_path / "mine.json")
