"""Device files: what each GPU can do (dryrun/devices/README.md).

The simulated GPU reads the same files in C++ (dryrun/core/device_model.cpp), with the same rules.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from . import _native

NUMBERS = ("float64", "float32", "tfloat32", "float16", "bfloat16", "float8")
_SHARES = (
    "matrix",
    "matrix_rows_4",
    "matrix_rows_2",
    "attention_forward",
    "attention_backward",
    "memory",
    "host_link",
    "host_link_both",
    "host_link_pageable",
    "peer_link",
    "network",
)
# What a file need not have, and the share that stands for it.
_OPTIONAL_SHARES = {
    "cudnn_attention_forward": "attention_forward",
    "cudnn_attention_backward": "attention_backward",
}

_OVERHEADS = ("operator", "kernel", "element", "copy", "collective", "peer_hop", "network_hop")
# What only a program of several ranks asks of a device.
_AMONG_RANKS = frozenset({"node", "peer_link", "network", "collective", "peer_hop", "network_hop", "peer_link.channels", "node.channels"})


# What only the simulated GPU reads; all are whole numbers.
_FACTS: Mapping[str, int] = {  # the least that is allowed
    "compute_capability.0": 1,
    "compute_capability.1": 0,
    "multiprocessors": 1,
    "l2_bytes": 1,
    "shared_bytes_per_block": 1,
    "shared_bytes_per_multiprocessor": 1,
    "threads_per_multiprocessor": 1,
    "blocks_per_multiprocessor": 1,
    "clock_khz": 1,
    "memory_clock_khz": 1,
    "memory_bus_bits": 1,
}
_MOST_WHOLE = (1 << 31) - 1
_MOST_CHANNELS = 64


class DeviceFileError(Exception):
    """An unknown device or a malformed file, told in one line."""


@dataclasses.dataclass(frozen=True)
class Device:
    """Peaks in bytes and operations a second, shares of them in (0, 1], times in seconds."""

    option: str
    name: str
    memory_bytes: int
    peak_flops: Mapping[str, float]
    memory_bandwidth: float
    to_host: float
    to_device: float
    devices_per_link: int
    peer_bandwidth: float
    devices_per_node: int
    share: Mapping[str, float]
    operator_seconds: float
    sources: Mapping[str, str]  # of shares and times in seconds, and of the node

    def assumed(self, among_ranks: bool) -> list[str]:
        """What was not measured on this device, by its file: of collectives only if asked for."""
        return [
            name
            for name, source in self.sources.items()
            if source.startswith("assumed") and (among_ranks or name not in _AMONG_RANKS)
        ]

    def matrix_flops(self, numbers: str = "bfloat16") -> float:
        """Operations a second that large matrix products reach."""
        return self.peak_flops[numbers] * self.share["matrix"]

    def attention_flops(self, is_backward: bool = False, numbers: str = "bfloat16") -> float:
        return (
            self.peak_flops[numbers]
            * self.share["attention_backward" if is_backward else "attention_forward"]
        )

    def memory_rate(self) -> float:
        return self.memory_bandwidth * self.share["memory"]

    def out_rate(self, ranks: int = 1) -> float:
        """Bytes a second to the host while nothing comes back; `ranks` devices copy at once."""
        return self.to_host * self.share["host_link"] / min(ranks, self.devices_per_link)

    def peer_rate(self) -> float:
        return self.peer_bandwidth * self.share["peer_link"]


def folder() -> pathlib.Path:
    """Where the device files are: EBBTIDE_DRYRUN_DEVICES, else beside the simulated GPU."""
    chosen = os.environ.get("EBBTIDE_DRYRUN_DEVICES")
    return pathlib.Path(chosen) if chosen else _native.folder() / "dryrun" / "devices"


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.json"))


def path_of(option: str) -> pathlib.Path:
    """The file of a name, or of a path ending in .json. Raises DeviceFileError if there is none."""
    if option.endswith(".json"):
        if not pathlib.Path(option).is_file():
            raise DeviceFileError(f"{option}: no such device file")
        return pathlib.Path(option).absolute()
    path = folder() / f"{option}.json"
    if not option or "/" in option or not path.is_file():
        known = ", ".join(names())
        raise DeviceFileError(
            f"unknown device; allowed: {known}, or the path of a device file (.json)"
        )
    return path


class _Reader:
    def __init__(self, path: pathlib.Path, root: Any) -> None:
        self._path, self._root = path, root

    def at(self, key: str) -> Any:
        value = self._root
        for part in key.split("."):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
                continue
            if not isinstance(value, dict) or part not in value:
                raise DeviceFileError(
                    f"{self._path}: {key} is missing: copy it from the file of a similar device in "
                    f"{folder()}"
                )
            value = value[part]
        return value

    def number(self, key: str, least: float, most: float) -> float:
        value = self.at(key)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            raise DeviceFileError(
                f"{self._path}: {key} must be a number from {least:g} to {most:g}"
            )
        return float(value)

    def whole(self, key: str, least: int = 1, most: int = _MOST_WHOLE) -> int:
        number = self.number(key, least, most)
        if number != int(number):
            raise DeviceFileError(f"{self._path}: {key} must be a whole number")
        return int(number)

    def rate(self, key: str) -> float:
        return self.number(key, 1, 1e21)

    def share(self, name: str) -> float:
        return self.number(f"efficiency.{name}.value", 1e-6, 1)


def _sources(root: dict[str, Any]) -> dict[str, str]:
    shares = root["efficiency"]
    described = {name: shares[name] for name in (*_SHARES, *_OPTIONAL_SHARES) if name in shares}
    described |= {name: root["overhead_seconds"].get(name, {}) for name in _OVERHEADS}
    described["node"] = root["node"]
    described |= {f"{link}.channels": root[link]["channels"] for link in ("peer_link", "node")}
    return {
        name: str(entry.get("source", "")) if isinstance(entry, dict) else ""
        for name, entry in described.items()
    }


def load(option: str) -> Device:
    """The device of a name or path. Raises DeviceFileError."""
    path = path_of(option)
    try:
        root = json.loads(path.read_text())
    except (OSError, ValueError):
        root = None
    if not isinstance(root, dict):
        raise DeviceFileError(f"{path}: not a JSON object")
    read = _Reader(path, root)
    if not isinstance(read.at("name"), str) or not read.at("name"):
        raise DeviceFileError(f"{path}: name must be a text")
    for key, least in _FACTS.items():
        read.whole(key, least)
    read.rate("node.network")
    for link in ("peer_link", "node"):
        read.whole(f"{link}.channels.value", 0, _MOST_CHANNELS)
    overheads = {name: read.number(f"overhead_seconds.{name}.value", 0, 1) for name in _OVERHEADS}
    shares = {name: read.share(name) for name in _SHARES}
    for name, otherwise in _OPTIONAL_SHARES.items():
        shares[name] = read.share(name) if name in root["efficiency"] else shares[otherwise]
    return Device(
        option=path.stem,
        name=read.at("name"),
        memory_bytes=int(read.number("memory_bytes", 1 << 20, 1e14)),
        peak_flops={name: read.rate(f"peak_flops.{name}") for name in NUMBERS},
        memory_bandwidth=read.rate("memory_bandwidth"),
        to_host=read.rate("host_link.to_host"),
        to_device=read.rate("host_link.to_device"),
        devices_per_link=read.whole("host_link.devices_per_link"),
        peer_bandwidth=read.rate("peer_link.bandwidth"),
        devices_per_node=read.whole("node.devices", 1, 16),
        share=shares,
        operator_seconds=overheads["operator"],
        sources=_sources(root),
    )
