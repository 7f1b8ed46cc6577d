"""`python -m app.jobs.child PARENT_PID COMMAND...`: runs a job's command while the process that asked for it lives.

It stands between the server and the job: a worker that is killed cannot end anything any more. It leads a process group
of its own, at low priority, in which the command and all that it starts are; when its parent is gone, or it is told to
end, the whole group is: SIGTERM, and what is still there after GRACE_S SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

NICE = 10
LOOK_S = 0.2
GRACE_S = 4.0
CUT_OFF = 75
"""Exit status when the command was ended from outside (EX_TEMPFAIL)."""


def main(parent: int, command: list[str]) -> int:
    """Run the command; return its exit status, 128 + number for a signal, CUT_OFF when it was ended from here."""
    told_to_end = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: told_to_end.append(number))
    os.nice(NICE)
    if ionice := shutil.which("ionice"):
        subprocess.run([ionice, "-c", "3", "-p", str(os.getpid())], check=False, stderr=subprocess.DEVNULL)
    if os.getppid() != parent:
        return CUT_OFF
    job = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while True:
        try:
            status = job.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            if told_to_end or os.getppid() != parent:
                _end(job)
                return CUT_OFF
            continue
        if told_to_end:
            _end(job)
            return CUT_OFF
        return status if status >= 0 else 128 - status


def _end(job: subprocess.Popen[bytes]) -> None:
    """End the command and all that it started; this process is of the same group, and takes SIGTERM as a word."""
    os.killpg(0, signal.SIGTERM)
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and (job.poll() is None or _others()):
        time.sleep(LOOK_S / 4)
    if job.poll() is None or _others():
        os.killpg(0, signal.SIGKILL)  # with this one: its parent, if there is one, knows from the status


def _others() -> bool:
    """Tell whether anybody else is in this group."""
    import psutil

    own, group = os.getpid(), os.getpgid(0)
    for process in psutil.process_iter():
        try:
            mine = process.pid != own and os.getpgid(process.pid) == group
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return False


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
