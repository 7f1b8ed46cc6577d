"""`--demo`: a simulated market, sent by the bridge itself like any other. Greenlet side."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import gevent
import psutil

from app.settings import ROOT, Settings

RESTART_S = 5.0
BRIDGE = ROOT / "scripts" / "mt5_bridge.py"

log = logging.getLogger("tickhub")


class Demo:
    """Runs the bridge with --simulate, again if it ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Feed the server for ever; to be spawned as a greenlet."""
        keys = self._settings.api_key_ingest or self._settings.api_key_admin
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TICKHUB_")}
        if keys:
            environ["TICKHUB_API_KEY"] = keys[0]
        end_left_over(self._settings.data_dir)
        while True:
            gevent.sleep(1.0)  # the server listens from the next turn of the loop on
            log.info("demo: simulating a market")
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    str(BRIDGE),
                    "--simulate",
                    "--url",
                    self._settings.listen_url,
                    "--spool",
                    str(self._settings.data_dir / "demo.sqlite"),
                ],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _pid_file(self._settings.data_dir).write_text(str(self._child.pid))
            status = self._child.wait()
            log.warning("demo: the simulation ended with status %d", status)
            gevent.sleep(RESTART_S)

    def stop(self) -> None:
        """End the simulation."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()


def end_left_over(data_dir: Path) -> None:
    """End the simulation of a worker that was killed, if there is one."""
    try:
        process = psutil.Process(int(_pid_file(data_dir).read_text()))
        # The number may be somebody else's by now.
        if str(BRIDGE) in process.cmdline() and "--simulate" in process.cmdline():
            process.terminate()
    except (OSError, ValueError, psutil.Error):
        return  # none was started, or it is gone


def _pid_file(data_dir: Path) -> Path:
    return data_dir / "run" / "demo.pid"
