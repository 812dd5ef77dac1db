"""`cmake --install`: headers, libraries and the package that find_package(ebbtide) finds."""

from __future__ import annotations

import pathlib
import re

import pytest
from conftest import ROOT
from libtorch_example import Example, call, example


@pytest.fixture(scope="module")
def built(native: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Example:
    return example(native, tmp_path_factory)


def test_installed_package_builds_and_runs_the_example(built: Example) -> None:
    text = ROOT / "tests" / "python" / "conftest.py"
    done = call([built.linked, text, 3], EBBTIDE="1", EBBTIDE_DEVICES="cpu", EBBTIDE_REPORT="off")
    assert done.stdout.count("loss") == 3
    assert "ebbtide report (cpu" in done.stdout


def test_linked_program_needs_the_adaptor_though_it_calls_nothing_of_it(built: Example) -> None:
    needed = call(["readelf", "-d", built.linked]).stdout
    assert "[libebbtide_torch_cpu.so]" in needed and "[libebbtide.so]" in needed


def test_installed_files_name_no_folder_of_the_build(built: Example) -> None:
    package = list(built.prefix.glob("lib*/cmake/ebbtide/*.cmake"))
    assert len(package) >= 4
    for file in package:
        assert str(ROOT) not in file.read_text(), file
    for library in built.prefix.glob("lib*/libebbtide*.so"):
        dynamic = call(["readelf", "-d", library]).stdout
        assert re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic) == ["$ORIGIN"], library


def test_c_header_is_strict_c11(built: Example, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "main.c"
    source.write_text(
        "#include <ebbtide/ebbtide.h>\n"
        "#include <string.h>\n"
        "int main(void) {\n"
        "  ebbtide_stats stats = {sizeof(stats)};\n"
        "  if (ebbtide_get_stats(-1, &stats) != EBBTIDE_UNSUPPORTED) return 1;\n"
        "  if (ebbtide_check_settings() != EBBTIDE_OK || ebbtide_mode() != 0) return 2;\n"
        "  return strlen(ebbtide_last_error()) > 0 && ebbtide_step() == EBBTIDE_OK ? 0 : 3;\n"
        "}\n"
    )
    engine = built.library("libebbtide.so")
    strict = ["-std=c11", "-pedantic", "-Wall", "-Werror"]
    includes = ["-I", built.prefix / "include"]
    program = tmp_path / "main"
    call(["cc", *strict, *includes, source, "-o", program, engine, f"-Wl,-rpath,{engine.parent}"])
    call([program])


def test_cpp_header_compiles_by_itself(built: Example, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "main.cpp"
    source.write_text("#include <ebbtide/ebbtide.hpp>\nint main() { ebbtide::step(); }\n")
    strict = ["-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    call(["c++", *strict, "-I", built.prefix / "include", source])
