"""Programs that a test interrupts."""

from __future__ import annotations

import signal


def hear_ctrl_c() -> None:
    """For Popen's preexec_fn: what a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
