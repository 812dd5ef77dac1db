"""The one exception of this package, and the one way to print a line about a problem."""

from __future__ import annotations

import sys


class EbbtideError(RuntimeError):
    """What went wrong, in one line; the command line tool prints it and exits with 2."""

    exit_code = 2


def one_line(text: object) -> str:
    return "; ".join(part.strip() for part in str(text).splitlines() if part.strip())


def print_line(level: str, text: object) -> None:
    """Print `ebbtide <level> <text>`, the form that the native log uses too."""
    print(f"ebbtide {level} {one_line(text)}", file=sys.stderr, flush=True)
