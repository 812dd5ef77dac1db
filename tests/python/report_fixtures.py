"""What the tests of reports share: the command in this process, and files read from bytes."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "python_shim"))

from ebbtide import _cli  # noqa: E402
from ebbtide._reports import _reading  # noqa: E402


@pytest.fixture(autouse=True)
def libraries(native, monkeypatch):
    monkeypatch.setenv("EBBTIDE_NATIVE_DIR", str(native))


@pytest.fixture
def ebbtide(tmp_path, monkeypatch, capfd):
    """ebbtide(arguments): what the command prints; a failure is its error line."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ebbtide", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            _cli.main()
        done = capfd.readouterr()
        assert ended.value.code == (2 if done.err.startswith("ebbtide error") else 0), done.err
        return done.out if ended.value.code == 0 else done.err

    return run


@pytest.fixture
def read(tmp_path):
    def read_bytes(content: bytes, name: str = "file"):
        path = tmp_path / name
        path.write_bytes(content)
        return _reading.read(str(path))

    return read_bytes
