"""What a program can import: with the engine, without it, and without torch."""

from __future__ import annotations

import pathlib

import pytest


def test_the_interface_reaches_the_library(run_python, fake_native, tmp_path):
    log = tmp_path / "log"
    code = """
        import torch, ebbtide
        ebbtide.step()
        with ebbtide.warmup():
            pass
        ebbtide.wait_for_plans()
        assert ebbtide.report() == "a report\\nof two lines\\n"
        stats = ebbtide.stats()
        assert (stats.device, stats.serving, stats.lost_events) == (-1, True, 3)
        assert stats == ebbtide.stats("cpu") == ebbtide.stats(torch.device("cpu"))
        assert stats.fragmentation == 0.25 and stats.settled_planned_share == 0.75
        assert stats.divergences == {
            "unexpected": 0, "outgrown": 7, "place_taken": 0, "no_memory": 0
        }
        assert stats.first_divergence == "the first one"
        try:
            ebbtide.stats("cuda:3")
        except ebbtide.EbbtideError as error:
            assert str(error) == "no adaptor serves that device"
        else:
            raise AssertionError("no error")
    """
    environment = {"EBBTIDE_NATIVE_DIR": str(fake_native), "FAKE_LOG": str(log)}
    done = run_python(code, EBBTIDE="1", EBBTIDE_DEVICES="cpu", **environment)
    assert done.returncode == 0, done.stderr
    seen = [line.split()[0] for line in log.read_text().splitlines()]
    assert seen == ["install_cpu", "step", "warmup_begin", "warmup_end", "wait", "finish"]


def test_an_exception_in_a_warmup_passes_through_and_ends_it(run_python, fake_native, tmp_path):
    log = tmp_path / "log"
    code = """
        import torch, ebbtide
        try:
            with ebbtide.warmup():
                raise KeyError("mine")
        except KeyError as error:
            print(error)
    """
    environment = {"EBBTIDE_NATIVE_DIR": str(fake_native), "FAKE_LOG": str(log)}
    done = run_python(code, EBBTIDE="1", EBBTIDE_DEVICES="cpu", **environment)
    assert done.returncode == 0 and "mine" in done.stdout, done.stderr
    assert "warmup_end" in log.read_text()


def test_a_program_with_our_calls_runs_without_ebbtide(run_python):
    code = """
        import torch, ebbtide
        assert not ebbtide.is_active()
        ebbtide.step()
        with ebbtide.warmup():
            ebbtide.step()
        ebbtide.wait_for_plans()
        for ask in (ebbtide.stats, ebbtide.report):
            try:
                ask()
            except ebbtide.EbbtideError as error:
                assert "EBBTIDE=1" in str(error) and "\\n" not in str(error)
            else:
                raise AssertionError("no error")
    """
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_without_torch_the_import_works_and_the_rest_says_so(run_python, tmp_path):
    # -S hides site-packages, and torch with it; only our own package is on the path.
    code = """
        import ebbtide, sys
        print(ebbtide.__version__, "torch" in sys.modules)
        def warm():
            with ebbtide.warmup():
                pass
        for ask in (ebbtide.step, ebbtide.stats, ebbtide.report, ebbtide.wait_for_plans, warm):
            try:
                ask()
            except ebbtide.EbbtideError as error:
                assert "torch is not installed" in str(error) and "\\n" not in str(error)
            else:
                raise AssertionError(f"{ask} gave no error")
    """
    import textwrap

    done = run_python(["-S", "-c", textwrap.dedent(code)], EBBTIDE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.1.0", "False"]


def test_the_version_is_the_projects():
    root = pathlib.Path(__file__).resolve().parents[2]
    import re
    import sys

    sys.path.insert(0, str(root / "python_shim"))
    import ebbtide

    text = (root / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.*)"$', text, re.MULTILINE)[1] == ebbtide.__version__
    cmake = (root / "CMakeLists.txt").read_text()
    assert f"VERSION {ebbtide.__version__} " in cmake


@pytest.mark.parametrize("device", ["meta", "cuda:x", "cuda:-1"])
def test_a_device_that_is_none_is_named(device):
    from ebbtide._stats import device_index

    with pytest.raises(ValueError, match="allowed are"):
        device_index(device)


@pytest.mark.parametrize(
    ("device", "index"), [("cpu", -1), ("cuda", 0), ("cuda:2", 2), (1, 1), (-1, -1)]
)
def test_devices_are_named_as_in_torch(device, index):
    from ebbtide._stats import device_index

    assert device_index(device) == index
