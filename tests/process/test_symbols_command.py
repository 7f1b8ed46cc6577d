"""`python -m app symbols`, as a person calls it, with and without a server."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.harness import ROOT, Database
from tests.process.wire import tick

Run = Callable[..., subprocess.CompletedProcess[str]]


def symbols(home: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TICKHUB_")}
    return subprocess.run(
        [sys.executable, "-B", "-m", "app", "symbols", *arguments, "--data-dir", str(home)],
        cwd=ROOT,
        env={**kept, "TICKHUB_PG_MEMORY_MB": "128"},
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def run(database: Database) -> Run:
    return lambda *arguments, text="": symbols(database.home, *arguments, text=text)


def table(run: Run) -> dict[str, dict[str, str]]:
    """The symbols as `list --csv` shows them."""
    listed = run("list", "--csv")
    assert listed.returncode == 0, listed.stderr
    return {row["symbol"]: row for row in csv.DictReader(io.StringIO(listed.stdout))}


@pytest.mark.long
def test_the_three_lists_show_the_same(run: Run) -> None:
    more = ("--sector", "Currencies", "--industry", "Majors", "--market-cap", "1.5e12")
    assert run("add", "EURUSD", "--alias", "EURUSD.r", "--name", "Euro", "--digits", "5", *more).returncode == 0
    as_json = json.loads(run("list", "--json").stdout)["symbols"]
    assert [row["symbol"] for row in as_json] == list(table(run))
    euro = {
        "symbol": "EURUSD",
        "aliases": ["EURUSD.r"],
        "name": "Euro",
        "exchange": None,
        "currency": None,
        "timezone": None,
        "digits": 5,
        "last_updated": None,
        "allow_nonpositive": False,
        "sector": "Currencies",
        "industry": "Majors",
        "market_cap": 1.5e12,
        "calendar": None,
    }
    assert euro in as_json
    empty = {"exchange": "", "currency": "", "timezone": "", "last_updated": "", "calendar": ""}
    texts = {"aliases": "EURUSD.r", "digits": "5", "allow_nonpositive": "no", "market_cap": "1500000000000.0"}
    assert table(run)["EURUSD"] == euro | empty | texts
    lines = run("list").stdout.splitlines()
    at = lines[0].index("digits")
    (shown,) = [line for line in lines if line.startswith("EURUSD ")]
    assert lines[0].split()[:3] == ["symbol", "aliases", "name"]
    assert (shown[at], len(lines)) == ("5", len(as_json) + 1)


@pytest.mark.long
def test_a_name_that_is_there_cannot_be_added_again(run: Run) -> None:
    assert run("alias", "tsla", "TSLA.O").stdout == "TSLA (also TSLA.O, TSLA.US)\n"
    again = run("add", "tsla.o")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.splitlines()[-1] == "tickhub: tsla.o is an alias of TSLA already"
    wrong = run("add", "NEW", "--timezone", "Mars")
    assert wrong.returncode == 1
    assert "timezone" in wrong.stderr.splitlines()[-1]
    assert "NEW" not in table(run)


@pytest.mark.long
def test_a_file_is_taken_row_by_row_and_the_bad_rows_are_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "symbols.csv"
    path.write_bytes(
        "\ufeffSymbol,Aliases,Name,Digits,Timezone,Allow_nonpositive\r\n"
        'EURUSD,EURUSD.r;EUR/USD,"Euro, ""the""",5,Europe/London,\r\n'
        "\r\n"
        "TSLA,,Tesla,2,,\r\n"
        "BAD,,,many,,\r\n"
        "WORSE,,,2,Mars,\r\n"
        "CLASH,NVDA,,,,\r\n"
        "OIL,CL|WTI,Öl,2,,yes\r\n".encode()
    )
    done = run("import", str(path))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "line 2: added: EURUSD (also EUR/USD, EURUSD.r)",
        "line 4: there: TSLA",
        "line 8: added: OIL (also CL, WTI)",
        "2 added, 0 changed, 1 there, 3 refused",
    ]
    refused = [line for line in done.stderr.splitlines() if line.startswith("line ")]
    assert refused[0] == "line 5: refused: digits is no number: 'many'"
    assert refused[1].startswith("line 6: refused: timezone: no time zone is called 'Mars'")
    assert refused[2] == "line 7: refused: NVDA is there already"
    found = table(run)
    assert (found["EURUSD"]["name"], found["OIL"]["name"]) == ('Euro, "the"', "Öl")
    assert (found["OIL"]["allow_nonpositive"], found["TSLA"]["name"]) == ("yes", "")
    assert not {"BAD", "WORSE", "CLASH"} & set(found)


@pytest.mark.long
def test_an_update_changes_what_its_cells_say_and_a_second_one_nothing(run: Run) -> None:
    text = "symbol,name,digits,aliases\ntsla.us,Tesla,2,TSLA.O\nNVDA,,3,\n"
    first = run("import", "-", "--update", text=text)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == "0 added, 2 changed, 0 there, 0 refused"
    assert run("import", "-", "--update", text=text).stdout.splitlines()[-1].startswith("0 added, 0 changed, 2 there")
    found = table(run)
    assert (found["TSLA"]["name"], found["TSLA"]["digits"]) == ("Tesla", "2")
    assert (found["TSLA"]["aliases"], found["NVDA"]["digits"]) == ("TSLA.O;TSLA.US", "3")


@pytest.mark.long
def test_what_list_writes_import_takes(run: Run, data_template: Path) -> None:
    run("add", "OIL", "--alias", "CL", "--alias", "WTI", "--name", "Öl; roh, leicht", "--allow-nonpositive")
    written = run("list", "--csv").stdout
    again = run("import", "-", "--update", text=written)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1].startswith("0 added, 0 changed, 18 there")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"name,digits\nx,2\n", "must name symbol"),
        (b"symbol,nmae\nX,y\n", "no column nmae is known"),
        (b"symbol,symbol\nX,y\n", "each column once"),
        (b"", "must name symbol"),
        (b"symbol\n\xff\xfe\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_of_symbols_is_refused_before_a_database_is_started(
    tmp_path: Path, data: bytes, why: str
) -> None:
    path = tmp_path / "symbols.csv"
    path.write_bytes(data)
    home = tmp_path / "data"
    done = symbols(home, "import", str(path))
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not home.exists()


@pytest.mark.long
def test_a_running_server_takes_a_symbols_first_tick_after_it_was_added(make_server) -> None:
    server = make_server(workers=2).start().wait_ready()
    eurusd = tick(symbol="EURUSD.r")
    assert server.post([eurusd])[0] == 400
    added = symbols(server.home, "add", "EURUSD", "--alias", "EURUSD.r")
    assert added.returncode == 0, added.stderr
    assert [server.post([eurusd])[0] for _ in range(10)] == [200] * 10  # by each worker
    server.wait_drained()
    assert server.database.rows("SELECT symbol FROM ticks JOIN instruments USING (symbol_id) GROUP BY symbol") == [
        ("EURUSD",)
    ]
