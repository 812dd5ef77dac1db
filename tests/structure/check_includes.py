"""Fails on every #include that the design does not draw: see `The house` in the documentation.

Usage: check_includes.py ROOT | check_includes.py --self-test
"""

import re
import sys
import tempfile
from pathlib import Path

ALLOCATOR = ("allocator/base", "allocator/device", "allocator/plan", "allocator/runtime")

# Folder -> the folders that it may include; the longest matching prefix of a path is its folder.
MAY_INCLUDE = {
    "allocator/base": ("allocator/base",),
    "allocator/device": ("allocator/base", "allocator/device"),
    "allocator/plan": ("allocator/base", "allocator/plan"),
    "allocator/runtime": ALLOCATOR,
    "swap": (*ALLOCATOR, "swap"),
    "profiler": (*ALLOCATOR, "profiler"),
    "hooks": (*ALLOCATOR, "swap", "profiler", "hooks"),
    "dryrun": ("allocator/base", "dryrun"),
}
ROOTS = ("allocator", "swap", "profiler", "hooks", "dryrun")
SUFFIXES = (".h", ".hpp", ".c", ".cpp")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
TORCH = re.compile(r"^(torch|c10|ATen|aten|caffe2)/")
DRIVER = re.compile(r"^(cuda|cublas|cudnn|cupti|nccl|nvml|nvtx|cuComplex|crt/|driver_types|vector_types)")
# Where headers of torch and of the driver are allowed.
OUTSIDE = re.compile(r"^(hooks/torch_|allocator/device/cuda_|dryrun/)")


def folder_of(path: str) -> str | None:
    """The folder of MAY_INCLUDE that a path from the root lies in."""
    folders = [folder for folder in MAY_INCLUDE if path.startswith(folder + "/")]
    return max(folders, key=len, default=None)


def fault_of(root: Path, source: str, quote: str, target: str) -> str | None:
    """What is wrong with one include; None if nothing is."""
    if TORCH.match(target) or DRIVER.match(target):
        if OUTSIDE.match(source):
            return None
        return "headers of torch and CUDA belong in hooks/torch_*, */cuda_* and dryrun/"
    if quote == "<" and not target.startswith(ROOTS):
        return None
    folder = folder_of(source)
    if folder is None:
        return "lies in no folder of the design"
    target_folder = folder_of(target)
    if target_folder is None or not (root / target).is_file():
        return "is not a header of the design, named from the repository's root"
    if target_folder not in MAY_INCLUDE[folder]:
        return f"{folder} may not include {target_folder}"
    return None


def faults(root: Path) -> list[str]:
    """Every forbidden include below `root`, as `path:line: include: reason`."""
    found = []
    for name in ROOTS:
        for path in sorted((root / name).rglob("*")):
            if path.suffix not in SUFFIXES:
                continue
            source = path.relative_to(root).as_posix()
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                include = INCLUDE.match(line)
                fault = include and fault_of(root, source, *include.groups())
                if fault:
                    found.append(f"{source}:{number}: {include.group(2)}: {fault}")
    return found


# (file, its include, whether that is allowed)
SAMPLES = [
    ("allocator/base/a.h", "<vector>", True),
    ("allocator/base/b.h", '"allocator/base/a.h"', True),
    ("allocator/base/c.h", '"allocator/plan/a.h"', False),
    ("allocator/plan/a.h", '"allocator/base/a.h"', True),
    ("allocator/plan/b.h", '"allocator/device/a.h"', False),
    ("allocator/plan/c.h", '"allocator/runtime/a.h"', False),
    ("allocator/device/a.h", '"allocator/base/a.h"', True),
    ("allocator/device/b.h", '"allocator/plan/a.h"', False),
    ("allocator/device/cuda_a.cpp", "<cuda.h>", True),
    ("allocator/runtime/a.h", '"allocator/plan/a.h"', True),
    ("allocator/runtime/b.h", '"swap/a.h"', False),
    ("allocator/runtime/c.cpp", "<c10/core/Allocator.h>", False),
    ("swap/a.h", '"allocator/runtime/a.h"', True),
    ("swap/b.h", '"profiler/a.h"', False),
    ("profiler/a.h", '"allocator/base/a.h"', True),
    ("profiler/b.h", '"swap/a.h"', False),
    ("profiler/c.h", '"hooks/a.h"', False),
    ("profiler/d.cpp", "<cuda_runtime_api.h>", False),
    ("profiler/cupti/a.cpp", "<cupti.h>", False),
    ("hooks/a.h", '"profiler/a.h"', True),
    ("hooks/b.cpp", '"dryrun/a.h"', False),
    ("hooks/c.cpp", "<torch/torch.h>", False),
    ("hooks/d.cpp", '"a.h"', False),
    ("hooks/e.cpp", '"../profiler/a.h"', False),
    ("hooks/torch_a.cpp", "<torch/torch.h>", True),
    ("dryrun/a.h", '"allocator/base/a.h"', True),
    ("dryrun/b.h", '"allocator/runtime/a.h"', False),
    ("dryrun/c.cpp", "<cuda.h>", True),
]


def self_test() -> list[str]:
    """Builds a small tree of allowed and forbidden includes; says where the check was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, include, _ in SAMPLES:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"// comment\n#include {include}\n", encoding="utf-8")
        noticed = {fault.split(":")[0] for fault in faults(root)}
    return [
        f"{name}: #include {include} should be {'allowed' if allowed else 'refused'}"
        for name, include, allowed in SAMPLES
        if (name not in noticed) != allowed
    ]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    found = self_test() if arguments[0] == "--self-test" else faults(Path(arguments[0]))
    print("\n".join(found) or "every include is one that the design draws")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
