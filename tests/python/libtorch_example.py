"""Installs Ebbtide from the build that the native libraries came from, and builds the LibTorch
example against what was installed. Once per test session, be it in several processes (pytest-xdist):
compiling against torch takes longest.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

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
    """The program `train`, and beside it `train_gpt`. Unoptimised: it compiles faster, and torch's own code does the work."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    call(
        ["cmake", "-S", EXAMPLE, "-B", folder, *generator, f"-DCMAKE_PREFIX_PATH={prefix}"]
        + [f"-DPython3_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Debug", *settings]
        + ["-DCMAKE_CXX_FLAGS_DEBUG=-O0"]
    )
    call(["cmake", "--build", folder])
    return folder / "train"


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
    """Other processes wait until what is being made in the folder is whole."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Example:
    """An installed Ebbtide and the program built against it."""

    def __init__(self, native: pathlib.Path, folder: pathlib.Path) -> None:
        self._folder = folder
        self.prefix = folder / "prefix"
        self.linked = folder / "linked" / "train"
        with held(folder):
            if not self.linked.exists():
                install(native, self.prefix)
                build_example(self.prefix, self.linked.parent)

    @property
    def gpt(self) -> pathlib.Path:
        """The program that offloads."""
        return self.linked.with_name("train_gpt")

    @functools.cached_property
    def plain(self) -> pathlib.Path:
        """The same program, which does not link Ebbtide."""
        program = self._folder / "plain" / "train"
        with held(self._folder):
            if not program.exists():
                build_example(self.prefix, program.parent, "-DWITH_EBBTIDE=OFF")
        return program

    def library(self, name: str) -> pathlib.Path:
        (found,) = self.prefix.glob(f"lib*/{name}")
        return found


_examples: dict[pathlib.Path, Example] = {}


def example(native: pathlib.Path, factory: pytest.TempPathFactory) -> Example:
    """For a fixture; every test module gets the same one."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed here")
    if native not in _examples:
        # The processes of one session have neighbouring folders; alone, the session has its own.
        ours = factory.getbasetemp()
        folder = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / "libtorch"
        folder.mkdir(exist_ok=True)
        _examples[native] = Example(native, folder)
    return _examples[native]
