"""The entry point that `import torch` calls (group torch.backends).

It must be cheap where Ebbtide is not wanted, and must never make `import torch` fail: whatever is
wrong becomes one line, and training goes on without Ebbtide. EBBTIDE_STRICT=1 ends the process
instead.
"""

from __future__ import annotations

import os
import sys


def _is_compile_worker() -> bool:
    """torch.compile's helper processes import torch, but train nothing."""
    return "compile_worker" in (sys.argv[0] if getattr(sys, "argv", None) else "")


def _is_set(name: str, off: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in ("", off)


def init() -> None:
    if _is_compile_worker():
        return
    try:
        if _is_set("EBBTIDE_DRYRUN_DEVICE", ""):
            from ._higher_order import install as let_pass

            from ._updates import install as tell_updates

            let_pass()
            tell_updates()
        if _is_set("EBBTIDE_DRYRUN_RANK", ""):
            from ._lone_rank import install as lone_rank

            lone_rank()
        elif _is_set("EBBTIDE_DRYRUN_DEVICE", ""):
            from ._rest import install as rest_at_end

            rest_at_end()
        if _is_set("EBBTIDE", "0"):
            from ._activation import activate

            activate()
        if _is_set("EBBTIDE_OFFLOAD", "off"):
            from ._offload._auto import install

            install()
    except Exception as error:  # noqa: BLE001 - see the top of this file
        _complain(error)


def _complain(error: Exception) -> None:
    from ._errors import EbbtideError, print_line

    reason = str(error) if isinstance(error, EbbtideError) else f"{type(error).__name__}: {error}"
    if os.environ.get("EBBTIDE_STRICT", "") == "1":
        print_line("error", f"{reason} (EBBTIDE_STRICT=1)")
        # Not an Exception, so torch does not wrap it into an error about device extensions.
        raise SystemExit(EbbtideError.exit_code)
    print_line("warning", f"{reason}; training goes on without Ebbtide")
