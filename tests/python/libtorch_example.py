"""Installs Ebbtide from the build that the native libraries came from, and builds the LibTorch
example against what was installed. Once per test session: compiling against torch takes longest.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, TIMEOUT_S

EXAMPLE = ROOT / "examples" / "libtorch"


def call(command: list[object], **variables: str) -> subprocess.CompletedProcess[str]:
    """Without a setting of ours but `variables`; fails the test when the command fails."""
    done = attempt(command, **variables)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def attempt(command: list[object], **variables: str) -> subprocess.CompletedProcess[str]:
    ours = ("EBBTIDE", "PYTORCH_", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["OMP_NUM_THREADS"] = "1"  # on a busy machine threads mostly wait for each other
    return subprocess.run(
        [str(part) for part in command],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def build_folder(native: pathlib.Path) -> pathlib.Path:
    """CMake's folder, beside whose cache the native libraries lie."""
    configured = os.environ.get("EBBTIDE_BUILD_DIR")
    folder = pathlib.Path(configured) if configured else native.resolve().parent
    if not (folder / "CMakeCache.txt").exists():
        pytest.skip(f"{folder} is no CMake build folder: set EBBTIDE_BUILD_DIR to one")
    return folder


def install(native: pathlib.Path, prefix: pathlib.Path) -> pathlib.Path:
    call(["cmake", "--install", build_folder(native), "--prefix", prefix])
    return prefix


def build_example(prefix: pathlib.Path, folder: pathlib.Path, *settings: str) -> pathlib.Path:
    """The program `train`. Unoptimised: it compiles faster, and torch's own code does the work."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    call(
        ["cmake", "-S", EXAMPLE, "-B", folder, *generator, f"-DCMAKE_PREFIX_PATH={prefix}"]
        + [f"-DPython3_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Debug", *settings]
        + ["-DCMAKE_CXX_FLAGS_DEBUG=-O0"]
    )
    call(["cmake", "--build", folder])
    return folder / "train"


class Example:
    """An installed Ebbtide and the program built against it."""

    def __init__(self, native: pathlib.Path, folder: pathlib.Path) -> None:
        self._folder = folder
        self.prefix = install(native, folder / "prefix")
        self.linked = build_example(self.prefix, folder / "linked")

    @functools.cached_property
    def plain(self) -> pathlib.Path:
        """The same program, which does not link Ebbtide."""
        return build_example(self.prefix, self._folder / "plain", "-DWITH_EBBTIDE=OFF")

    def library(self, name: str) -> pathlib.Path:
        (found,) = self.prefix.glob(f"lib*/{name}")
        return found


_examples: dict[pathlib.Path, Example] = {}


def example(native: pathlib.Path, factory: pytest.TempPathFactory) -> Example:
    """For a fixture; every test module gets the same one."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed here")
    if native not in _examples:
        _examples[native] = Example(native, factory.mktemp("libtorch"))
    return _examples[native]
