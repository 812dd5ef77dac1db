"""What the Python tests share: programs run in processes of their own, because Ebbtide is started
by `import torch` and can be judged only from the outside.

Tests that need the native libraries use the fixture `native`. Where EBBTIDE_NATIVE_DIR is set (as
scripts/test does) a missing library fails them; otherwise they are skipped and counted.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "python" / "programs"
TIMEOUT_S = 240

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder that makes torch find our entry point, installed or not."""
    folder = tmp_path_factory.mktemp("metadata") / "package"
    link = ROOT / "scripts" / "lib" / "link_package.py"
    subprocess.run([sys.executable, str(link), "--metadata", str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def python_environment(metadata: pathlib.Path) -> dict[str, str]:
    """This process's environment with our package importable and none of our settings."""
    ours = ("EBBTIDE", "PYTORCH_", "PYTHONPATH", "TORCH_DEVICE_BACKEND_AUTOLOAD", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept["PYTHONPATH"] = os.pathsep.join([str(ROOT / "python_shim"), str(metadata)])
    kept["EBBTIDE_OOM"] = "off"  # where the tests run, no reports are to be left
    kept["COLUMNS"] = "200"  # a line of ours is to stay one line
    return kept


@pytest.fixture(scope="session")
def run_python(python_environment: dict[str, str]) -> Run:
    """run_python(code or list of arguments, **variables): runs it, captures what it prints."""

    def run(program: str | list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        if isinstance(program, str):
            program = ["-c", textwrap.dedent(program)]
        return subprocess.run(
            [sys.executable, *map(str, program)],
            env=python_environment | variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=ROOT,
        )

    return run


def native_folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get("EBBTIDE_NATIVE_DIR") or ROOT / "build" / "native")


@pytest.fixture(scope="session")
def native() -> pathlib.Path:
    """The folder of the built libraries."""
    folder = native_folder()
    if not (folder / "libebbtide.so").exists():
        reason = f"no native libraries in {folder}: build first, or set EBBTIDE_NATIVE_DIR"
        if "EBBTIDE_NATIVE_DIR" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture
def needs_transformers() -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed here")


def our_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("ebbtide ")]


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    # In another process: this one must stay free of CUDA, and of Ebbtide if EBBTIDE is set.
    code = "import torch, sys; sys.exit(not (torch.version.cuda and torch.cuda.is_available()))"
    environment = os.environ | {"EBBTIDE": "0"}
    return subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not _has_gpu():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and there is none here"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    gpu = sum("gpu" in report.keywords for report in skipped)
    if skipped:
        terminalreporter.write_line(
            f"SKIPPED {len(skipped)} tests, of which {gpu} need a GPU: they prove nothing here",
            yellow=True,
        )


@pytest.fixture(scope="session")
def fake_native(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Fake libraries for the torch that is installed."""
    from fakes import build

    version = installed_torch_version()
    return build(tmp_path_factory.mktemp("fake"), version)


def installed_torch_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("torch").split("+")[0]
