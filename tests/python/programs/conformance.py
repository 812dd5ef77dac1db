"""What torch's memory functions must do, whatever allocator is under them.

    conformance.py GROUP...      prints a line of JSON for each check of these groups

The assertions are the same for torch's own allocator and for Ebbtide, before and under a plan. They run
on simulated devices of 2 GiB (test_conformance.py); the checks are in conformance_checks/.
"""

from conformance_checks import graphs, judged, memory_ends, pools, settings, snapshots, statistics, streams  # noqa: F401
from conformance_rig import main

if __name__ == "__main__":
    main()
