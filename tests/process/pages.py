"""The commands of docs/*.md, run on a real server: `python -m tests.process.pages [NAME ...]` writes what they print.

A page is read from top to bottom. Blocks of ```console are run: lines that begin with `$ ` are commands (those that
end in a backslash go on, and what follows `<<` up to its end belongs to them), the others are what is printed.
`$ COMMAND &` runs in the background, `$ kill %1` ends it. Comments say what happens between blocks: <!-- start -->,
<!-- stop --> the server; <!-- run: COMMAND --> something that needs no mention. The data directory is called
/srv/tickhub on the page.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.process.harness import ROOT, Server, copy_template, folder, make_template
from tests.waiting import wait_until

DOCS = ROOT / "docs"
PAGES = ("handbook", "troubleshooting", "upgrade")
HOME, PORT, WORK = "/srv/tickhub", "5000", "/srv/desk"  # as pages have them
COMMAND_S = 120
WORKERS = 2

_STEP = re.compile(r"^<!-- (start|stop|run: [^\n]*) -->$|^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_SHOWN = ("PostgreSQL runs as user", "adopted PostgreSQL", "started PostgreSQL")
"""Commands that need the embedded database say so; whether it ran already is of no interest on a page."""

_SECRETS = (
    (re.compile(r"th_[a-z0-9]{8}_[\w-]{30,}"), "th_k3x9q0az_..."),
    (re.compile(r"^[\w-]{32}$", re.MULTILINE), "(the password)"),
)
_VARIES = (
    (re.compile(r'"next_page_token":"[^"]+"'), '"next_page_token":"..."'),
    # Of the doctor, which is about the machine, the names of the checks.
    (re.compile(r"^(?:OK|WARN|FAIL)\b(?: +(\w+(?: \w+)*) .*)?", re.MULTILINE), r"FINDING \1"),
    (re.compile(r"\b[0-9a-f]{8}\b|(?<=prefix=')\w{8}|^[a-z0-9]{8}(?=  )", re.MULTILINE), "0"),
    # Times, sizes, durations, process ids: all that is counted or measured is another number each time.
    (re.compile(r"\d[\d,.:TZ]*"), "0"),
    (re.compile(r"-{2,}| {2,}"), " "),
)


@dataclass
class Command:
    """A command of a page, and what the page says that it prints."""

    text: str
    printed: list[str] = field(default_factory=list)


def alike(text: str) -> str:
    """Return what is compared of a text: all but what is another one each time."""
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def commands(block: str) -> Iterator[Command]:
    """Yield the commands of a console block."""
    found: Command | None = None
    end_of_input = ""
    for line in block.splitlines():
        if found is not None and (end_of_input or found.text.endswith("\\")) and not found.printed:
            found.text += f"\n{line}"
            if line == end_of_input:
                end_of_input = ""
        elif line.startswith("$ "):
            if found is not None:
                yield found
            found = Command(line[2:])
            here = re.search(r"<<'?(\w+)'?", line)
            end_of_input = here[1] if here else ""
        elif found is not None:
            found.printed.append(line)
    if found is not None:
        yield found


class Reader:
    """Does what a page says, on a server of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._environ = server.environ | {
            "TICKHUB_PORT": str(server.port),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PGTZ": "UTC",
            "COLUMNS": "120",
        }
        self._behind: list[subprocess.Popen[bytes]] = []
        self._work = tempfile.TemporaryDirectory()

    def read(self, page: str) -> str:
        """Return the page with what its commands printed now."""
        parts, at = [], 0
        for step in _STEP.finditer(page):
            if step[1] == "start":
                self._start()
            elif step[1] == "stop":
                assert self.server.stop() == 0, self.server.log()
            elif step[1]:
                self.run(step[1].removeprefix("run: "))
            else:
                done = "".join(self._block(step[2]))
                parts += [page[at : step.start(2)], done]
                at = step.end(2)
        return "".join([*parts, page[at:]])

    def _start(self) -> None:
        server = self.server.start().wait_ready()
        # Any worker may answer what is asked next.
        wait_until(lambda: server.log().count("the database is connected") >= WORKERS, what="all workers")

    def close(self) -> None:
        """End what runs in the background."""
        for process in self._behind:
            process.kill()
            process.wait()
        self._work.cleanup()

    def _block(self, block: str) -> Iterator[str]:
        for command in commands(block):
            yield f"$ {command.text}\n"
            if command.text.endswith(" &"):
                with open(Path(self._work.name) / "behind.log", "wb") as log:
                    self._behind.append(
                        subprocess.Popen(
                            ["bash", "-c", f"exec {self._ours(command.text[:-2])}"],
                            cwd=ROOT,
                            env=self._environ,
                            stdout=log,
                            stderr=log,
                        )
                    )
            elif command.text == "kill %1":
                process = self._behind.pop()
                process.send_signal(signal.SIGTERM)
                process.wait(COMMAND_S)
            else:
                printed = self.run(command.text).strip("\n")
                yield f"{printed}\n" if printed else ""

    def run(self, command: str) -> str:
        """Run a command of the page; return what it prints, as it is shown on the page."""
        done = subprocess.run(
            ["bash", "-c", self._ours(command)],
            cwd=ROOT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert "Traceback" not in done.stdout, f"{command}\n{done.stdout}"
        text = done.stdout.replace(str(self.server.home), HOME).replace(str(ROOT), "/opt/tickhub")
        text = text.replace(self._work.name, WORK).replace(str(self.server.port), PORT)
        for secret, instead in _SECRETS:
            text = secret.sub(instead, text)
        return "\n".join(line.rstrip() for line in text.splitlines() if not line.startswith(_NOT_SHOWN))

    def _ours(self, command: str) -> str:
        command = command.replace(HOME, str(self.server.home)).replace(
            f"localhost:{PORT}", f"localhost:{self.server.port}"
        )
        return command.replace(WORK, self._work.name)


def write(names: list[str]) -> None:
    """Write what the commands of these pages print into them."""
    with folder() as parent:
        template = make_template(parent / "template")
        for name in names:
            server = Server(copy_template(template, parent / name), workers=WORKERS)
            reader = Reader(server)
            path = DOCS / f"{name}.md"
            try:
                path.write_text(reader.read(path.read_text()))
            finally:
                reader.close()
                server.close()


if __name__ == "__main__":
    write(sys.argv[1:] or list(PAGES))
