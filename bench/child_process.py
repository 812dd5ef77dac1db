"""Child processes of measurements: what takes too long ends with all that it started; why one failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence

KEPT_LINES = 30  # of what a failed child said
# As Python prints it last, with or without a module: "torch.AcceleratorError: CUDA error: ...".
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)(?::|$)")


def run(
    command: Sequence[str],
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Raises subprocess.TimeoutExpired with what was said until then."""
    # A group of its own: a dry run's program, which its command waits for, ends with it.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env, cwd=cwd
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            raise subprocess.TimeoutExpired(command, late.timeout, output, errors) from None
        except BaseException:  # it would not hear of Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def last_lines(errors: str | bytes | None) -> str:
    text = errors.decode() if isinstance(errors, bytes) else errors or ""
    return "\n".join(text.splitlines()[-KEPT_LINES:])


def reason(errors: str) -> str:
    """The last line that names an exception: torch says hints behind it. Else the last one that says something."""
    lines = [line for line in errors.splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith("ebbtide dryrun")]  # than a dry run's summary
    named = [line for line in others if _EXCEPTION.match(line)]
    return (named or others or lines or ["nothing was said"])[-1].strip()


def is_warning(line: str) -> bool:
    return line.startswith(("ebbtide warning", "ebbtide error"))
