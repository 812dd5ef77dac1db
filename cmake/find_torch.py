"""Print the folder of the installed torch package, without importing it.

Looks on the import path first, then in the environment's own site-packages: a build in isolation
(`pip install .`) hides those from the import path, but the build is meant for that torch.
"""

import importlib.util
import pathlib
import sysconfig


def torch_folder() -> str:
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.submodule_search_locations:
        return str(spec.submodule_search_locations[0])
    for key in ("platlib", "purelib"):
        folder = pathlib.Path(sysconfig.get_path(key)) / "torch"
        if (folder / "include" / "c10").is_dir():
            return str(folder)
    return ""


if __name__ == "__main__":
    print(torch_folder())
