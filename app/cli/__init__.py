"""`python -m app COMMAND`: a module a command, with `add_arguments(parser)` and `run(args, settings) -> int`.

A command is imported when it is called, so a light one never pays for a heavy one. Flags that are settings
are declared here: every command takes those of COMMON, `serve` takes them all.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Iterable, Sequence

from app.errors import SettingsError, TickhubError
from app.setting_values import Setting, suggest
from app.settings import BY_NAME, load

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("app.cli.serve", "run the server"),
    "migrate": ("app.cli.migrate", "bring the database to the newest schema"),
    "database": ("app.cli.database", "start, stop or look at the embedded database"),
    "import": ("app.cli.import_ticks", "load tick files"),
    "import-ohlc": ("app.cli.import_ohlc", "load daily bars from files or from SSI FastConnect"),
    "export": ("app.cli.export", "write ticks or bars to files"),
    "coverage": ("app.cli.coverage", "tell how good the stored ticks are, day by day, or draw it"),
    "records": ("app.cli.records", "load records of the other datasets from files, or write them to files"),
    "symbols": ("app.cli.symbols", "list, add and import instruments"),
    "alerts": ("app.cli.alerts", "list, add and remove rules of alerts"),
    "delete": ("app.cli.delete", "remove ticks of a symbol; bars and current quotes follow"),
    "rebuild": ("app.cli.rebuild", "compute bars or current quotes again from the stored ticks"),
    "maintain": ("app.cli.maintain", "keep the database tidy, and drop what is too old"),
    "backup": ("app.cli.backup", "take, list, check and remove backups"),
    "restore": ("app.cli.restore", "bring the database back as it was"),
    "keys": ("app.cli.keys", "make, list, revoke and rotate API keys"),
    "roles": ("app.cli.roles", "let the database's roles in, and shut them out"),
    "archive": ("app.cli.archive", "move old ticks to Parquet files, check them, bring them back"),
    "doctor": ("app.cli.doctor", "look for what is wrong, and say what to do"),
    "url": ("app.cli.url", "print the URL of the database"),
    "psql": ("app.cli.psql", "open psql on the database"),
}
"""name -> (module, help)"""

COMMON = ("data_dir", "database_url")

_DEST = "setting_"
_INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE; the driver is too heavy for a command that needs none."""


def add_setting_flags(parser: argparse.ArgumentParser, settings: Iterable[Setting]) -> None:
    """Declare the flags of these settings; their texts are checked by `load`, where all sources meet."""
    group = parser.add_argument_group("settings")
    for row in settings:
        if not row.flag_names:
            continue
        help_text = f"{row.help}{f' ({row.unit})' if row.unit else ''}".replace("%", "%%")
        names, dest = row.flag_names, _DEST + row.name
        if row.kind == "bool":
            group.add_argument(
                *names,
                dest=dest,
                default=argparse.SUPPRESS,
                help=help_text,
                nargs="?",
                const="true",
                metavar="true|false",
            )
        else:
            metavar = "|".join(row.choices) or row.kind.upper()
            group.add_argument(*names, dest=dest, default=argparse.SUPPRESS, help=help_text, metavar=metavar)


_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
"""Troubles that are the operator's to mend, wherever they are met; others are mistakes of ours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 when it failed, 2 when it was asked wrongly."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name = arguments.pop(0)
    if name not in COMMANDS:
        return _fail(f"unknown command {name}{suggest(name, COMMANDS)}; see python -m app --help", 2)
    module, summary = COMMANDS[name]
    command = importlib.import_module(module)
    parser = argparse.ArgumentParser(prog=f"python -m app {name}", description=summary, allow_abbrev=False)
    command.add_arguments(parser)
    add_setting_flags(parser, [BY_NAME[common] for common in COMMON])
    args = parser.parse_args(arguments)
    flags = {key.removeprefix(_DEST): text for key, text in vars(args).items() if key.startswith(_DEST)}
    try:
        return int(command.run(args, load(flags=flags)))
    except SettingsError as why:
        return _fail(str(why), 2)
    except TickhubError as why:
        return _fail(f"{why}{_remedy(why)}", 1)
    except KeyboardInterrupt:
        return 130  # what a shell reports for a program that Ctrl-C ended
    except BrokenPipeError:
        # Whoever read has gone, as `head` does. Else Python would stumble over it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as why:
        if why.errno not in _OF_DISKS:
            raise
        return _fail(f"{f'{why.filename}: ' if why.filename else ''}{why.strerror}", 1)


def _remedy(why: TickhubError) -> str:
    """Say what helps against the one thing that trying again never does: a role that may not."""
    if getattr(why.__cause__, "pgcode", None) != _INSUFFICIENT_PRIVILEGE:
        return ""
    return ": do it as the database's owner, name him in TICKHUB_DIRECT_DATABASE_URL (docs/roles.md)"


def _fail(why: str, status: int) -> int:
    print(f"tickhub: {' '.join(why.split())}", file=sys.stderr)
    return status


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: python -m app COMMAND [--help] [...]", "", *lines])
