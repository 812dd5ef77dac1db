"""Device files as the command line reads them: each wrong key is one line that names file and key."""

from __future__ import annotations

import json

import pytest
from dryrun_run import ROOT
from ebbtide import _devices

FILES = ROOT / "dryrun" / "devices"
WHOLE = json.loads((FILES / "h200.json").read_text())
SHARES = (
    "matrix matrix_rows_4 matrix_rows_2 attention_forward attention_backward memory host_link host_link_both host_link_pageable "
    "peer_link network"
).split()
OPTIONAL = {"cudnn_attention_forward": "attention_forward", "cudnn_attention_backward": "attention_backward"}
# Every number that a file must have, and one beyond what it may be.
NUMBERS = {
    "memory_bytes": 1e15,
    "compute_capability.0": 0,
    "compute_capability.1": -1,
    "multiprocessors": 0,
    "l2_bytes": 3e9,
    "shared_bytes_per_block": 0,
    "shared_bytes_per_multiprocessor": 0,
    "threads_per_multiprocessor": 0,
    "blocks_per_multiprocessor": 0,
    "clock_khz": 0,
    "memory_clock_khz": 0,
    "memory_bus_bits": 0,
    "memory_bandwidth": 0,
    "host_link.to_host": 0,
    "host_link.to_device": 0,
    "host_link.devices_per_link": 0,
    "peer_link.bandwidth": 0,
    "node.devices": 17,
    "node.network": 0,
    "peer_link.channels.value": 65,
    "node.channels.value": -1,
    **{f"peak_flops.{name}": 0 for name in _devices.NUMBERS},
    **{f"efficiency.{name}.value": 1.01 for name in SHARES},
    **{
        f"overhead_seconds.{name}.value": -1e-6
        for name in ("operator", "kernel", "element", "copy", "collective", "peer_hop", "network_hop")
    },
}


@pytest.fixture(autouse=True)
def device_files(monkeypatch):
    monkeypatch.setenv("EBBTIDE_DRYRUN_DEVICES", str(FILES))


def complaint(tmp_path, root) -> str:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(root))
    with pytest.raises(_devices.DeviceFileError) as raised:
        _devices.load(str(path))
    line = str(raised.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line.removeprefix(f"{path}: ")


def changed(key, value=None, is_there=True):
    """A copy of the H200's file in which `key` is `value`, or is not there."""
    root = json.loads(json.dumps(WHOLE))
    *folders, name = key.split(".")
    place = root
    for folder in folders:
        place = place[folder]
    name = int(name) if isinstance(place, list) else name
    if is_there:
        place[name] = value
    else:
        del place[slice(name, None) if isinstance(place, list) else name]
    return root


def leaves(value, path=""):
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, f"{path}.{name}")]
    if isinstance(value, list):
        return [leaf for at, inner in enumerate(value) for leaf in leaves(inner, f"{path}.{at}")]
    return [path[1:]] if not isinstance(value, str) else []


def test_the_table_has_every_number_of_a_file():
    assert set(NUMBERS) | {f"efficiency.{name}.value" for name in OPTIONAL} == set(leaves(WHOLE))


@pytest.mark.parametrize("key", NUMBERS)
def test_a_key_that_is_missing_of_a_wrong_type_or_out_of_range_is_one_line(tmp_path, key):
    assert complaint(tmp_path, changed(key, is_there=False)) == (
        f"{key} is missing: copy it from the file of a similar device in {FILES}"
    )
    for wrong in ("fast", None, True, [], NUMBERS[key]):
        said = complaint(tmp_path, changed(key, wrong))
        assert said.startswith(f"{key} must be a number from "), said


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_share_that_a_file_need_not_have_is_another_there(tmp_path, name):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(changed(f"efficiency.{name}", is_there=False)))
    without = _devices.load(str(path))
    assert without.share[name] == without.share[OPTIONAL[name]]
    assert name not in without.sources
    assert _devices.load("h200").share[name] > without.share[name]


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_share_that_a_file_need_not_have_is_checked_where_it_is_there(tmp_path, name):
    key = f"efficiency.{name}.value"
    assert complaint(tmp_path, changed(key, is_there=False)).startswith(f"{key} is missing: ")
    for wrong in ("fast", None, 1.01):
        assert complaint(tmp_path, changed(key, wrong)).startswith(f"{key} must be a number from ")


def test_what_is_no_text_or_no_whole_number_is_one_line(tmp_path):
    for wrong in (7, "", None):
        assert complaint(tmp_path, changed("name", wrong)) == "name must be a text"
    assert complaint(tmp_path, changed("multiprocessors", 1.5)) == "multiprocessors must be a whole number"
    assert complaint(tmp_path, [WHOLE]) == "not a JSON object"


def test_every_file_of_the_folder_loads():
    assert len(_devices.names()) >= 7
    for name in _devices.names():
        assert _devices.load(name).option == name


def test_no_file_has_unaligned_products_faster_than_aligned_ones():
    for name in _devices.names():
        share = _devices.load(name).share
        assert share["matrix"] >= share["matrix_rows_4"] >= share["matrix_rows_2"], name
