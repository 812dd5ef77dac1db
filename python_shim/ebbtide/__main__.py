import sys

try:
    from ._cli import main
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
        raise
    sys.exit(f"ebbtide error {missing.name} is not installed: pip install typer rich")

if __name__ == "__main__":
    main()
