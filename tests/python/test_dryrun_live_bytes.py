"""Live bytes of a dry run against those of the same operators on CPU tensors: equal, to the byte.

On the CPU they are counted by torch's profiler, from the allocator's own reports of what it took
and gave back; on the simulated device by the allocator there, as requested bytes, before rounding.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from dryrun_run import ROOT, simulate

PROGRAM = ROOT / "tests" / "python" / "programs" / "live_bytes.py"
MODELS = ("mlp", "attention", "convolution", "embedding", "checkpointed")
