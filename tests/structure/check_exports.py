"""Fails unless a library's exported C functions are exactly those that a header declares.

Usage: check_exports.py --nm NM --library LIBRARY --header HEADER | check_exports.py --self-test
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

DECLARATION = re.compile(r"^EBBTIDE_API\b[^(;]*?\b(\w+)\s*\(", re.MULTILINE)
# C++ names, and what linkers and sanitizers add.
NOT_C = re.compile(r"^(_Z|__|_init$|_fini$|_edata$|_end$)")


def declared(header: str) -> set[str]:
    """Names of the functions that the header's text declares as exported."""
    return set(DECLARATION.findall(header))


def exported(listing: str) -> set[str]:
    """C names in the output of nm, whose last column is the name."""
    names = {line.split()[-1].split("@")[0] for line in listing.splitlines() if line.strip()}
    return {name for name in names if not NOT_C.match(name)}


def differences(header: str, listing: str) -> list[str]:
    """What one of the two has and the other lacks, in words."""
    wanted, found = declared(header), exported(listing)
    if not wanted:
        return ["the header declares nothing"]
    return [f"{name} is declared and not exported" for name in sorted(wanted - found)] + [
        f"{name} is exported and not declared" for name in sorted(found - wanted)
    ]


def self_test() -> list[str]:
    header = "EBBTIDE_API const char* prj_a(void);\nEBBTIDE_API size_t prj_b(\n    int);\nint prj_c(void);\n"
    both = "0001 T prj_a\n0002 T prj_b\n0003 W _ZN3fmt1aEv\n0004 B __bss_start\n"
    cases = [
        (both, []),
        (both.replace("T prj_a", "T prj_x"), ["prj_a is declared and not exported", "prj_x is exported and not declared"]),
        (both + "0005 D helper\n", ["helper is exported and not declared"]),
    ]
    return [
        f"expected {wanted}, got {differences(header, listing)}"
        for listing, wanted in cases
        if differences(header, listing) != wanted
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nm")
    parser.add_argument("--library")
    parser.add_argument("--header", type=Path)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        found = self_test()
    else:
        command = [options.nm, "-D", "--defined-only", options.library]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = differences(options.header.read_text(encoding="utf-8"), listing)
    print("\n".join(found) or "exported and declared functions are the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
