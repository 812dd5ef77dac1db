"""Write the exports of a stand-in library: C code, and the linker's version script.

The names come from the installed library (its dynamic symbols, with their versions) or, for a
library that comes with the driver and not with torch, from its header. Every name gets a weak
definition: one that succeeds, for the names in noops.txt, and otherwise one that reports its name
and fails. What is written by hand is a strong definition and wins.
"""

import argparse
import fnmatch
import pathlib
import re
import subprocess

FUNCTION = re.compile(r"CUDAAPI\s+(cu[A-Z]\w*)\s*\(")
RENAME = re.compile(
    r"^\s*#\s*define\s+(cu[A-Z]\w*)\s+(?:__CUDA_API_PT[DS][SZ]\()?(cu[A-Z]\w*)", re.MULTILINE
)


def library_names(library: pathlib.Path) -> tuple[list[str], str]:
    """The functions that `library` exports, and the version they carry ("" if none)."""
    table = subprocess.run(
        ["readelf", "--wide", "--dyn-syms", str(library)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names, versions = [], set()
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[3] != "FUNC" or fields[6] == "UND":
            continue
        name, _, version = fields[7].replace("@@", "@").partition("@")
        names.append(name)
        versions.add(version)
    if len(versions) != 1:
        raise SystemExit(f"{library}: expected one symbol version, found {sorted(versions)}")
    return sorted(set(names)), versions.pop()


def header_names(header: pathlib.Path) -> tuple[list[str], dict[str, str]]:
    """The driver's functions, and what the header's macros turn the plain names into."""
    text = header.read_text()
    functions = set(FUNCTION.findall(text))
    renames: dict[str, str] = {}
    for plain, real in RENAME.findall(text):
        if plain in functions and re.fullmatch(re.escape(plain) + r"(_v\d+)?", real):
            renames.setdefault(plain, real)
    return sorted(functions | set(renames.values())), renames


def noop_patterns(path: pathlib.Path, short: str) -> list[str]:
    lines = (line.split() for line in path.read_text().splitlines())
    return [fields[1] for fields in lines if len(fields) == 2 and fields[0] == short]


def stubs(names: list[str], short: str, patterns: list[str]) -> str:
    code = [f"int ebbtide_dryrun_refuse_{short}(const char* function);"]
    for name in names:
        is_noop = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        result = "0" if is_noop else f'ebbtide_dryrun_refuse_{short}("{name}")'
        code.append(f"__attribute__((weak)) int {name}(void) {{ return {result}; }}")
    return "\n".join(code) + "\n"


def lookup(names: list[str], renames: dict[str, str]) -> str:
    rows = [f'  {{"{name}", (void*)&{renames.get(name, name)}}},' for name in names]
    return (
        "#include <string.h>\n"
        "static const struct { const char* name; void* function; } kFunctions[] = {\n"
        + "\n".join(rows)
        + "\n};\n"
        "void* ebbtide_dryrun_driver_function(const char* name) {\n"
        "  for (unsigned i = 0; i < sizeof kFunctions / sizeof *kFunctions; ++i) {\n"
        "    if (strcmp(kFunctions[i].name, name) == 0) return kFunctions[i].function;\n"
        "  }\n"
        "  return 0;\n"
        "}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", required=True, help="cudart, cuda, cublas or cublasLt")
    parser.add_argument("--library", type=pathlib.Path)
    parser.add_argument("--header", type=pathlib.Path)
    parser.add_argument("--noops", type=pathlib.Path, required=True)
    parser.add_argument("--code", type=pathlib.Path, required=True)
    parser.add_argument("--script", type=pathlib.Path, required=True)
    arguments = parser.parse_args()

    version, extra = "", ""
    if arguments.library is not None:
        names, version = library_names(arguments.library)
    else:
        names, renames = header_names(arguments.header)
        extra = lookup(names, renames)
    patterns = noop_patterns(arguments.noops, arguments.short)
    arguments.code.write_text(stubs(names, arguments.short, patterns) + extra)
    exported = "".join(f"    {name};\n" for name in names)
    arguments.script.write_text(f"{version} {{\n  global:\n{exported}  local: *;\n}};\n".lstrip())


if __name__ == "__main__":
    main()
