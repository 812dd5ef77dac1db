"""The page of `ebbtide report --html`, in a real browser: Debian's chromium, where it is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys

import pytest
import report_files as made
from conftest import ROOT

pytest.importorskip("numpy")
sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide._reports import _figures, _page, _planned, _reading, _tables  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = {"phone": 360, "desktop": 1280}

# Runs in a page around the report's, once for each width; what it finds is a JSON object in #found.
SCRIPT = """
const found = {};
const wait = () => new Promise(done => setTimeout(done, 120));
const luminance = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
async function look(frame) {
  const w = frame.contentWindow, d = w.document, $ = id => d.getElementById(id), told = () => $("told").textContent;
  const page = { painted: d.body.dataset.painted, overflow: d.documentElement.scrollWidth - w.innerWidth };
  const press = async (key, id = "map") => { $(id).dispatchEvent(new w.KeyboardEvent("keydown", { key, bubbles: true })); await wait(); };
  const pixels = id => {
    const c = $(id), data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, seen = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
    return seen.size;
  };
  page.colors = { time: pixels("time"), map: pixels("map") };
  page.unnamed = [...d.querySelectorAll("canvas,[role=img],[role=region],button")]
    .filter(e => !(e.getAttribute("aria-label") || e.textContent.trim())).map(e => e.outerHTML.slice(0, 80));
  page.unreachable = [...d.querySelectorAll("canvas,.scroll")].filter(e => e.tabIndex !== 0).length;
  page.heads = [...d.querySelectorAll("table")].filter(t => !t.querySelector("thead th[scope=col]")).length;
  const [ink, paper] = [w.getComputedStyle(d.body).color, w.getComputedStyle(d.body).backgroundColor].map(luminance);
  page.contrast = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  page.dark = paper < .2;
  const dock = $("dock").getBoundingClientRect();  // what is told is in sight, wherever the reader is
  page.dock = dock.bottom <= w.innerHeight + 1 && dock.top > 0;
  await press("]"); page.first = told();
  await press("]"); page.second = told();
  await press("["); page.again = told();
  const canvas = $("time"), box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new w.PointerEvent("pointermove", { clientX: box.left + 74 + (box.width - 84) * 7.5 / 13, clientY: box.top + 50, bubbles: true }));
  await wait(); page.pointed = told();
  $("planned").click(); await wait(); page.planned = [$("planned").getAttribute("aria-pressed"), pixels("map")];
  $("axis").click(); await wait(); page.seconds = $("axis").getAttribute("aria-pressed");
  await press("p", "time"); page.peak = told();
  await press("+"); await press("0");
  page.busy = null;
  if ($("lanes")) {
    const lanes = $("lanes"), at = lanes.getBoundingClientRect();
    // By seconds: in the first quarter the first stream's first kernel runs.
    lanes.dispatchEvent(new w.PointerEvent("pointermove", { clientX: at.left + 74 + (at.width - 84) / 5, clientY: at.top + 20, bubbles: true }));
    await wait();
    w.paint();  // a frame may not have been due yet
    page.busy = { told: told(), lanes: pixels("lanes"), host: pixels("host") };
    $("host").dispatchEvent(new w.PointerEvent("pointermove", { clientX: at.left + 74 + (at.width - 84) / 5, clientY: 20, bubbles: true }));
    await wait();
    page.busy.host_told = told();
    const other = $("compared"), around = other.getBoundingClientRect();
    other.dispatchEvent(new w.PointerEvent("pointermove", { clientX: around.left + 74 + (around.width - 84) / 2, clientY: 20, bubbles: true }));
    await wait();
    page.busy.compared = { told: told(), colors: pixels("compared") };
  }
  return page;
}
const errors = [];
onload = async () => {
  await wait();
  for (const frame of document.querySelectorAll("iframe")) {
    frame.contentWindow.addEventListener("error", e => errors.push(String(e.message)));
    try { found[frame.id] = await look(frame); } catch (error) { errors.push(String(error)); }
  }
  found.errors = errors;
  document.getElementById("found").textContent = JSON.stringify(found);
};
"""


@pytest.fixture(scope="module")
def page(native, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "small.pickle"
    path.write_bytes(made.small_snapshot())
    recording = _reading.read(str(path))
    (device,) = recording.devices
    return _page.render(recording, device, _planned.saving(device, 1.0))


@pytest.fixture(scope="module")
def busy_page(native, tmp_path_factory):
    """With kernels, copies and swaps; set beside the small one."""
    path = tmp_path_factory.mktemp("busy") / "busy.ebb"
    path.with_name("small.pickle").write_bytes(made.small_snapshot())
    (small,) = _reading.read(str(path.with_name("small.pickle"))).devices
    path.write_bytes(made.trace(made.busy_trace()))
    recording = _reading.read(str(path))
    (device,) = recording.devices
    return _page.render(recording, device, _planned.saving(device, 1.0), _tables.Compared("x/small.pickle", small, None))


def test_the_page_asks_for_nothing_from_elsewhere(page):
    assert not re.search(r"https?:|//[a-z]|\bsrc=|@import|url\(|<link|fetch\(|XMLHttp", page)


def test_the_page_holds_the_figures_as_text(page, tmp_path):
    for text in ("9.00 MiB", "24.00 MiB", "166.7 %", "62.5 %", "train/model.py:7 forward", "13631488"):
        assert text in page


def test_before_and_after_stand_beside_each_other(busy_page):
    rows = re.search(r"busy.ebb and small.pickle: figures.*?</table>", busy_page, re.DOTALL)[0]
    assert '<th scope="row">peak live</th><td>24.00 MiB</td><td>9.00 MiB</td><td>-15.00 MiB</td><td>-62.5 %</td>' in rows
    data = json.loads(busy_page.split('application/json">')[1].split("</script>")[0])
    assert [run["name"] for run in data["compared"]] == ["busy.ebb", "small.pickle"]


def test_a_name_cannot_leave_its_place_in_the_page(native, tmp_path):
    evil = "</script><script>alert(1)</script>"
    frames = [made.frame("forward", f"/x/{evil}.py")]
    path = tmp_path / "evil.pickle"
    path.write_bytes(made.snapshot([made.entry("alloc", 4096, 10, 1, frames)], []))
    recording = _reading.read(str(path))
    assert "<script>alert" not in _page.render(recording, recording.devices[0], None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_on_a_phone_and_a_desktop(page, busy_page, tmp_path, scheme):
    if BROWSER is None:
        pytest.skip("no chromium is installed: the page is not looked at")
    # GIVEN the page in frames of both widths
    frames = "".join(
        f'<iframe id="{name}" style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(page)}"></iframe>'
        for name, width in WIDTHS.items()
    )
    frames += f'<iframe id="busy" style="width:360px;height:900px;border:0" srcdoc="{html.escape(busy_page)}"></iframe>'
    around = tmp_path / "around.html"
    around.write_text(f'<!doctype html><meta charset="utf-8"><script>{SCRIPT}</script>{frames}<pre id="found"></pre>')
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            "--virtual-time-budget=8000", "--dump-dom", around.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert found["errors"] == []
    busy = found.pop("busy")
    assert busy["overflow"] <= 0 and (busy["unnamed"], busy["unreachable"], busy["heads"]) == ([], 0, 0)
    assert busy["busy"]["told"].startswith("stream 7, 0.000148 s: gemm(float*, int)\n0.300 ms, kernel")
    assert busy["busy"]["lanes"] >= 4 and busy["busy"]["host"] > 2
    assert busy["busy"]["host_told"].startswith("host memory: 16.00 MiB taken of 40.00 MiB pinned")
    assert busy["busy"]["compared"]["told"].splitlines()[1] == "small.pickle: live 7.00 MiB, reserved 22.00 MiB", busy["busy"]["compared"]
    assert busy["busy"]["compared"]["colors"] > 4
    assert found["phone"]["busy"] is None
    for name in WIDTHS:
        seen = found[name]
        # THEN it is drawn, fits, and can be read
        assert seen["painted"] == "1" and seen["overflow"] <= 0
        assert seen["colors"]["time"] > 4 and seen["colors"]["map"] > 4
        assert seen["contrast"] > 7 and seen["dark"] == (scheme == "dark")
        # AND it has names for a screen reader, and every picture and table is reached by keyboard
        assert (seen["unnamed"], seen["unreachable"], seen["heads"]) == ([], 0, 0)
        # AND keys and the pointer tell the numbers of the recording
        assert seen["first"].startswith("4.00 MiB (4194280 bytes, 4194304 with rounding) of train/model.py:7 forward")
        assert "activations, made in forward, from event 3 to event 11" in seen["first"]
        assert seen["first"].endswith("\n    at train/model.py:7 forward\n    at train/main.py:30 <module>")
        assert seen["dock"]
        assert seen["second"].startswith("2.00 MiB") and seen["again"] == seen["first"]
        assert seen["pointed"].startswith("event 7, 0.000020 s: live 9.00 MiB, reserved 22.00 MiB")
        # there is a moment of each of the 13 states
        assert seen["pointed"].splitlines()[2].startswith("requested 9.00 MiB | rounding 124 B | stranded 13.00 MiB"), seen["pointed"]
        assert seen["planned"][0] == "true" and seen["planned"][1] > 4
        assert seen["seconds"] == "true" and seen["peak"].startswith("event 7,")


def test_a_long_recording_is_drawn_in_bounds(native, tmp_path):
    # GIVEN more blocks than are drawn
    events = []
    for i in range(70_000):
        events.append(made.Event(made.ALLOCATE, (i + 1) << 12, 4096))
        if i >= 10:
            events.append(made.Event(made.FREE, (i - 9) << 12, 4096))
    path = tmp_path / "long.ebb"
    path.write_bytes(made.trace(events, block=4096))
    recording = _reading.read(str(path))
    (device,) = recording.devices
    text = _page.render(recording, device, None)
    assert len(text) < 5 << 20
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert data["map"]["left_out"] == 10_000
    assert 64 <= len(data["splits"]) <= 66 and [data["peak"], data["split"]] in data["splits"]
    assert int(_figures.live_curve(device).max()) == 11 * 4096
