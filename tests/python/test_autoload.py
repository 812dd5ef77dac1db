"""`import torch` with our entry point: quiet where it is not wanted, one line where it cannot work."""

from __future__ import annotations

import pathlib

import pytest
from conftest import our_lines
from fakes import build

TRAIN = """
    import torch
    layer = torch.nn.Linear(4, 4)
    layer(torch.ones(2, 4)).sum().backward()
    print("trained", layer.weight.grad.sum().item())
"""


def calls(log: pathlib.Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("setting", [{}, {"EBBTIDE": "0"}, {"EBBTIDE": ""}])
def test_without_the_variable_nothing_of_ebbtide_is_loaded(run_python, fake_native, setting):
    code = """
        import sys, torch
        assert "ebbtide._autoload" in sys.modules, "the entry point was not found"
        print(sorted(name for name in sys.modules if name.startswith("ebbtide")))
        print(torch.nn.Module.__call__.__module__)
    """
    done = run_python(code, EBBTIDE_NATIVE_DIR=str(fake_native), **setting)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['ebbtide', 'ebbtide._autoload', 'ebbtide._errors']",
        "torch.nn.modules.module",
    ]
    assert our_lines(done.stderr) == []


def test_missing_libraries_are_one_line_and_training_goes_on(run_python, tmp_path):
    done = run_python(TRAIN, EBBTIDE="1", EBBTIDE_NATIVE_DIR=str(tmp_path / "nothing"))
    assert done.returncode == 0, done.stderr
    assert "trained 32.0" in done.stdout
    (line,) = our_lines(done.stderr)
    assert "libebbtide.so is missing" in line and "EBBTIDE_NATIVE_DIR" in line
    assert done.stderr.strip() == line


def test_strict_ends_the_process_with_one_line_and_no_traceback(run_python, tmp_path):
    done = run_python(
        TRAIN, EBBTIDE="1", EBBTIDE_STRICT="1", EBBTIDE_NATIVE_DIR=str(tmp_path / "nothing")
    )
    assert done.returncode == 2
    assert "trained" not in done.stdout
    (line,) = our_lines(done.stderr)
    assert done.stderr.strip() == line and "EBBTIDE_STRICT=1" in line


def test_a_library_that_is_no_library_is_one_line(run_python, tmp_path):
    (tmp_path / "libebbtide.so").write_text("not a library")
    done = run_python(TRAIN, EBBTIDE="1", EBBTIDE_NATIVE_DIR=str(tmp_path))
    assert done.returncode == 0 and "trained" in done.stdout
    (line,) = our_lines(done.stderr)
    assert "libebbtide.so cannot be loaded" in line


def test_a_wrong_setting_is_the_librarys_own_line(run_python, fake_native, tmp_path):
    log = tmp_path / "log"
    done = run_python(
        TRAIN, EBBTIDE="maybe", EBBTIDE_NATIVE_DIR=str(fake_native), FAKE_LOG=str(log)
    )
    assert done.returncode == 0 and "trained" in done.stdout
    assert our_lines(done.stderr) == [
        "ebbtide warning EBBTIDE is wrong: allowed are 0, 1, observe; "
        "training goes on without Ebbtide"
    ]
    assert calls(log) == []


def test_another_torch_is_one_line_that_names_both_and_the_remedy(run_python, tmp_path):
    log = tmp_path / "log"
    folder = build(tmp_path / "old", "2.5.1")
    done = run_python(TRAIN, EBBTIDE="1", EBBTIDE_NATIVE_DIR=str(folder), FAKE_LOG=str(log))
    assert done.returncode == 0 and "trained" in done.stdout
    (line,) = our_lines(done.stderr)
    assert "built for torch 2.5.1" in line and "is installed" in line and "pip install" in line
    assert calls(log) == []


def test_versions_fit_when_major_and_minor_do():
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python_shim"))
    from ebbtide._activation import version_mismatch

    assert version_mismatch("2.11.0", "2.11.1+cu130") == ""
    assert version_mismatch("2.11.0", "2.1.1") != ""
    assert version_mismatch("2.11.0", "2.12.0a0+git1234") != ""


def test_one_installs_the_adaptor_and_ends_the_work_at_exit(run_python, fake_native, tmp_path):
    log = tmp_path / "log"
    code = """
        import torch, ebbtide
        assert ebbtide.is_active()
    """
    environment = {"EBBTIDE_NATIVE_DIR": str(fake_native), "FAKE_LOG": str(log)}
    done = run_python(code, EBBTIDE="1", EBBTIDE_DEVICES="cpu", **environment)
    assert done.returncode == 0, done.stderr
    assert calls(log) == ["install_cpu", "finish"]


@pytest.mark.parametrize("devices", ["cuda", "cpu,cuda"])
def test_devices_says_which_adaptors_and_cuda_stays_uninitialised(
    run_python, fake_native, tmp_path, devices
):
    log = tmp_path / "log"
    code = """
        import torch
        if torch.version.cuda is None:
            print("no CUDA build")
        else:
            assert not torch.cuda.is_initialized()
            assert not torch.cuda._is_in_bad_fork()
            print("ok")
    """
    environment = {"EBBTIDE_NATIVE_DIR": str(fake_native), "FAKE_LOG": str(log)}
    done = run_python(code, EBBTIDE="1", EBBTIDE_DEVICES=devices, **environment)
    assert done.returncode == 0, done.stderr
    if "no CUDA build" in done.stdout:
        assert "built without it" in our_lines(done.stderr)[0]
    else:
        assert calls(log) == [f"install_{kind}" for kind in devices.split(",")] + ["finish"]


def test_a_wrong_device_is_one_line(run_python, fake_native):
    done = run_python(
        TRAIN, EBBTIDE="1", EBBTIDE_DEVICES="tpu", EBBTIDE_NATIVE_DIR=str(fake_native)
    )
    assert done.returncode == 0 and "trained" in done.stdout
    (line,) = our_lines(done.stderr)
    assert "EBBTIDE_DEVICES=tpu" in line and "cpu, cuda and cpu,cuda" in line


@pytest.mark.parametrize("variable", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_cuda_malloc_async_is_one_line_and_installs_nothing(
    run_python, fake_native, tmp_path, variable
):
    log = tmp_path / "log"
    done = run_python(
        TRAIN,
        EBBTIDE="1",
        EBBTIDE_DEVICES="cuda",
        EBBTIDE_NATIVE_DIR=str(fake_native),
        FAKE_LOG=str(log),
        **{variable: "backend:cudaMallocAsync"},
    )
    assert done.returncode == 0 and "trained" in done.stdout
    (line,) = our_lines(done.stderr)
    assert "cudaMallocAsync" in line and "backend:native" in line
    assert calls(log) == []


@pytest.mark.parametrize(
    ("mode", "user", "expected"),
    [
        ("1", None, "expandable_segments:True"),
        ("1", "max_split_size_mb:128", "max_split_size_mb:128,expandable_segments:True"),
        ("1", "expandable_segments:False", None),
        ("observe", None, None),
    ],
)
def test_expandable_segments_unless_the_user_decided_or_only_observes(
    run_python, fake_native, mode, user, expected
):
    # The autoloader runs inside `import torch`, so the call is caught from a module loaded before.
    code = """
        import sys
        seen = []
        class Watch:
            def find_spec(self, name, path=None, target=None):
                if name == "ebbtide._activation":
                    import torch
                    real = torch._C._accelerator_setAllocatorSettings
                    def caught(text):
                        seen.append(text)
                        real(text)
                    torch._C._accelerator_setAllocatorSettings = caught
        sys.meta_path.insert(0, Watch())
        import torch
        print(seen, torch.cuda.is_initialized())
    """
    settings = {"PYTORCH_CUDA_ALLOC_CONF": user} if user else {}
    done = run_python(
        code,
        EBBTIDE=mode,
        EBBTIDE_DEVICES="cuda",
        EBBTIDE_NATIVE_DIR=str(fake_native),
        **settings,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{[expected] if expected else []} False"


def test_a_forked_child_sends_no_hints_and_writes_no_report(run_python, fake_native, tmp_path):
    log = tmp_path / "log"
    code = """
        import os, sys, torch, ebbtide
        layer = torch.nn.Linear(2, 2)
        child = os.fork()
        if child == 0:
            layer(torch.ones(1, 2))
            assert not ebbtide.is_active()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        layer(torch.ones(1, 2))
    """
    environment = {"EBBTIDE_NATIVE_DIR": str(fake_native), "FAKE_LOG": str(log)}
    done = run_python(code, EBBTIDE="1", EBBTIDE_DEVICES="cpu", **environment)
    assert done.returncode == 0, done.stderr
    assert calls(log) == ["install_cpu", "mark", "finish"]


def test_compile_workers_are_left_alone(run_python, fake_native, tmp_path):
    log = tmp_path / "log"
    worker = tmp_path / "compile_worker" / "__main__.py"
    worker.parent.mkdir()
    worker.write_text("import torch\n")
    environment = {"EBBTIDE_NATIVE_DIR": str(fake_native), "FAKE_LOG": str(log)}
    done = run_python([str(worker)], EBBTIDE="1", EBBTIDE_DEVICES="cpu", **environment)
    assert done.returncode == 0, done.stderr
    assert calls(log) == []


def test_torch_can_be_told_not_to_load_us(run_python, fake_native):
    done = run_python(
        "import torch, ebbtide; assert not ebbtide.is_active()",
        EBBTIDE="1",
        EBBTIDE_NATIVE_DIR=str(fake_native),
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    assert done.returncode == 0, done.stderr
