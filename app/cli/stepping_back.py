"""Heavy commands work beside a server that has to answer within milliseconds: they let it go first."""

from __future__ import annotations

import os
from contextlib import suppress

NICE = 19


def step_back() -> None:
    """Give this process, and all that it starts from now on, what others leave of the processor.

    Not before the embedded server was started: it would be so for ever. What the database does for this process keeps
    its priority: others wait for the locks that it holds meanwhile. SCHED_IDLE would go further, and let others wait
    for a quarter of a second where the kernel has it in the middle of a file.
    """
    if hasattr(os, "SCHED_BATCH"):  # Linux: whoever wakes up there does not push others aside
        with suppress(PermissionError):  # a container may forbid it; the work is to be done all the same
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
