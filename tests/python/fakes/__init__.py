"""Builds the fake native libraries: for tests of what Python does around the real ones."""

from __future__ import annotations

import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def build(folder: pathlib.Path, torch_version: str) -> pathlib.Path:
    """libebbtide.so and the libraries for torch, which say that they were built for `torch_version`."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = [os.environ.get("CC", "cc"), "-shared", "-fPIC", f"-I{ROOT}"]
    engine = folder / "libebbtide.so"
    subprocess.run([*compiler, str(HERE / "fake_engine.c"), "-o", str(engine)], check=True)
    for kind in ("cpu", "cuda", "store"):
        defines = [f'-DFAKE_TORCH_VERSION="{torch_version}"', f"-DFAKE_KIND={kind}"]
        out = str(folder / f"libebbtide_torch_{kind}.so")
        sources = ["fake_adaptor.c", "fake_saving.c"] if kind == "store" else ["fake_adaptor.c"]
        command = [*compiler, *defines, *(str(HERE / source) for source in sources), "-o", out]
        subprocess.run(command, check=True)
    return folder
