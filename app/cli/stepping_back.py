"""Heavy commands work beside a server that has to answer within milliseconds: they let it go first."""

from __future__ import annotations

import os

from app.jobs.child import NICE


def step_back() -> None:
    """Give this process, and all that it starts from now on, the processor when nobody else wants it.

    Not before the embedded server was started: it would be so for ever. What the database does for this process keeps
    its priority: others wait for what it holds meanwhile.
    """
    if hasattr(os, "SCHED_IDLE"):  # Linux; who is only nice lets somebody who wakes up wait for some milliseconds
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
