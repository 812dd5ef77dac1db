"""Make the checkout's Python package importable, entry points included, without a build backend.

An editable install would compile the C++ a second time and needs the network; torch only asks for
the package's metadata. --metadata writes that into a folder; --link also puts the folder and
python_shim on this environment's import path and adds the `ebbtide` command.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys
import sysconfig

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_metadata(folder: pathlib.Path, project: dict) -> None:
    name, version = project["name"], project["version"]
    shutil.rmtree(folder, ignore_errors=True)
    target = folder / f"{name}-{version}.dist-info"
    target.mkdir(parents=True)
    (target / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()), ""]
    (target / "entry_points.txt").write_text("\n".join(lines))


def link(folder: pathlib.Path, project: dict) -> None:
    site = pathlib.Path(sysconfig.get_path("purelib"))
    (site / "ebbtide-checkout.pth").write_text(f"{ROOT / 'python_shim'}\n{folder}\n")
    for command, target in project["scripts"].items():
        module, function = target.split(":")
        script = pathlib.Path(sysconfig.get_path("scripts")) / command
        script.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n\n{function}()\n")
        script.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metadata", type=pathlib.Path, required=True, metavar="FOLDER")
    parser.add_argument("--link", action="store_true")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = options.metadata.resolve()
    write_metadata(folder, project)
    if options.link:
        link(folder, project)


if __name__ == "__main__":
    main()
