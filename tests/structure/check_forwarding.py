"""Every virtual function of torch's CUDA allocator is forwarded: what is not would be torch's default,
or another class's behaviour, without a word.

    check_forwarding.py --torch-include FOLDER HEADER...     HEADER: of our allocator and what it derives from
    check_forwarding.py --self-test
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

BASES = {
    "c10/cuda/CUDACachingAllocator.h": "CUDAAllocator",
    "c10/core/CachingDeviceAllocator.h": "DeviceAllocator",
    "c10/core/Allocator.h": "Allocator",
}


def class_body(text: str, name: str) -> str:
    found = re.search(rf"\b(?:class|struct)\s+(?:\w+_API\s+)?{name}\b[^;{{]*\{{", text)
    if found is None:
        raise ValueError(f"no class {name} here")
    depth, at = 1, found.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return text[found.end() : at]


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def virtual_functions(text: str, name: str) -> set[str]:
    body = class_body(without_comments(text), name)
    return set(re.findall(r"\bvirtual\b[^;{(]*?(\w+)\s*\(", body)) - {name}


def forwarded(text: str) -> set[str]:
    """Overrides, and the functions that the forwarder declares for its classes to override."""
    text = without_comments(text)
    overrides = re.findall(r"(\w+)\s*\([^;{]*?\)\s*(?:const\s*)?(?:noexcept\s*)?override\b", text)
    return set(overrides) | set(re.findall(r"\bvirtual\b[^;{(]*?(\w+)\s*\(", text))


def self_test() -> None:
    theirs = "class C10_API A : B {\n virtual ~A() = default; // virtual void no();\n" \
        " virtual int f(int a = 1) const;\n virtual std::pair<int, X*> g(\n int) { return {}; }\n};"
    assert virtual_functions(theirs, "A") == {"f", "g"}
    assert forwarded("int f(int a) const override { return 1; }\nvoid h(int);") == {"f"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--torch-include", type=pathlib.Path)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("headers", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return 0
    ours = set().union(*(forwarded(header.read_text()) for header in arguments.headers))
    missing = [
        f"{name}::{function} ({header}) is not forwarded"
        for header, name in BASES.items()
        for function in sorted(virtual_functions((arguments.torch_include / header).read_text(), name) - ours)
    ]
    print("\n".join(missing), file=sys.stderr)
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
