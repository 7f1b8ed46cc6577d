"""/api/coverage and `python -m app coverage` on a real server: a made day with known holes, in every format."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.quality.picture import BANDS
from tests.process.harness import ROOT, WAIT_S, Server
from tests.process.reading import DAY_MS, read, refusal, store
from tests.process.wire import ask, running, tick

PATH = "/api/coverage/MADE"
TUESDAY = {"start": "2026-01-13", "end": "2026-01-14"}
OPEN_MS = DAY_MS + 14 * 3_600_000 + 30 * 60_000
"""The bell in New York."""

SESSION_S = 6.5 * 3600


def made_day() -> list[dict[str, Any]]:
    """Return a tick each 30 s of a session but for two holes, and what is odd about it."""
    times = [OPEN_MS + at * 30_000 for at in range(780)]
    del times[200:220], times[600:603]
    ticks = [
        tick(symbol="MADE", bid=100 + number % 7 / 100, ask=100.1 + number % 7 / 100, timestamp=at, seq=0)
        for number, at in enumerate(times)
    ]
    ticks[50] |= {"bid": 100.5}  # crossed
    ticks[90] |= {"bid": 0, "flags": 4}
    ticks[300] |= {"bid": 130.0, "ask": 130.1}
    return [*ticks, tick(symbol="MADE", bid=100, ask=100.1, timestamp=OPEN_MS - 3_600_000, seq=0)]


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, environ={"TICKHUB_FLUSH_INTERVAL_S": "0.01"}) as server:
        for symbol in ("MADE", "EMPTY"):
            body = json.dumps({"symbol": symbol, "exchange": "XNYS", "digits": 2, "aliases": [f"{symbol}.X"]})
            assert ask(server, "POST", "/api/symbols", body.encode()).status == 201
        ticks = made_day()
        store(server, ticks)
        store(server, ticks[10:30])
        yield server
        assert "Traceback" not in server.log()


def command(server: Server, *args: str, expect: int = 0) -> bytes:
    """Run the command on the server's data; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "coverage", *args],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        timeout=4 * WAIT_S,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout if not expect else done.stderr


def rows(server: Server, what: str = "days", **params: Any) -> list[dict[str, Any]]:
    answer = read(server, PATH if what == "days" else f"{PATH}/{what}", **(TUESDAY | params))
    assert answer.status == 200, answer
    assert answer.json["symbol"] == "MADE"
    return list(answer.json[what])


def test_a_day_tells_what_is_wrong_with_it(server: Server) -> None:
    (day,) = rows(server)
    assert day.pop("coverage") == pytest.approx(1 - (630 + 120) / SESSION_S)
    assert day == {
        "timestamp": "2026-01-13T00:00:00.000000Z",
        "ticks": 758,
        "session_ticks": 757,
        "session_s": SESSION_S,
        "gaps": 2,
        "gaps_s": 750.0,
        "longest_gap_s": 630.0,
        "crossed": 1,
        "nonpositive": 1,
        "outliers": 2,  # there and back
        "duplicates": 20,
        "late": 758,
        "waiting": 0,
        "rejected": 0,
        "first": "2026-01-13T13:30:00.000000Z",
        "last": "2026-01-13T20:59:30.000000Z",
    }


def test_gaps_and_outliers_are_told_one_by_one(server: Server) -> None:
    first, second = rows(server, "gaps")
    assert (first["start"], first["end"]) == ("2026-01-13T16:09:30.000000Z", "2026-01-13T16:20:00.000000Z")
    assert (first["seconds"], second["seconds"]) == (630.0, 120.0)
    assert len(rows(server, "gaps", gap_s=25)) == 757 - 2 + 2
    assert rows(server, "gaps", gap_s=3600) == []
    assert [row["price"] > 129 for row in rows(server, "outliers", outlier_z=1000)] == [True, False]
    by_hour = {row["hour"]: row for row in rows(server, "hours") if row["session_s"]}
    assert list(by_hour) == [9, 10, 11, 12, 13, 14, 15]
    assert by_hour[11]["gaps_s"] == 630
    assert sum(row["ticks"] for row in by_hour.values()) == 757


@pytest.mark.parametrize("what", ["", "/hours", "/gaps", "/outliers"])
def test_every_format_has_the_same_rows(server: Server, what: str) -> None:
    week = {"start": "2026-01-12", "end": "2026-01-19"}
    told = read(server, PATH + what, **week, format="json").json
    wanted = told[what.strip("/") or "days"]
    assert wanted
    lines = read(server, PATH + what, **week, format="ndjson").data.splitlines()
    assert [json.loads(line) for line in lines] == wanted
    cells = list(csv.DictReader(io.StringIO(read(server, PATH + what, **week, format="csv").data.decode())))
    assert [list(row) for row in cells] == [list(row) for row in wanted]
    assert [[name for name, text in row.items() if text == ""] for row in cells] == [
        [name for name, value in row.items() if value is None] for row in wanted
    ]
    arrow = pa.ipc.open_stream(read(server, PATH + what, **week, format="arrow").data).read_all()
    whole = read(server, PATH + what, {"Range": "bytes=0-9"}, **week, format="parquet")
    parquet = pq.read_table(io.BytesIO(whole.data))
    assert arrow.num_rows == len(wanted)
    assert parquet.equals(arrow)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_have_the_rows_of_the_whole(server: Server, order: str) -> None:
    week = {"start": "2026-01-12", "end": "2026-01-19", "order": order}
    for what in ("days", "hours"):
        path = PATH if what == "days" else f"{PATH}/{what}"
        whole = read(server, path, **week).json[what]
        found, token = [], {}
        while True:
            answer = read(server, path, **week, limit=5, **token).json
            assert len(answer[what]) <= 5
            found += answer[what]
            if answer["next_page_token"] is None:
                break
            token = {"page_token": answer["next_page_token"]}
        assert found == whole
        assert len(whole) == (7 if what == "days" else 7 * 24)


def test_closed_days_have_a_row_without_a_coverage(server: Server) -> None:
    found = read(server, "/api/coverage/empty.x", start="2026-01-16", end="2026-01-20").json
    assert found["symbol"] == "EMPTY"
    told = [(row["session_s"], row["coverage"], row["gaps"], row["first"], row["outliers"]) for row in found["days"]]
    assert told == [(SESSION_S, 0, 1, None, None), *[(0, None, 0, None, None)] * 3]  # the Monday is a holiday


def test_without_a_range_the_newest_30_days_come(server: Server) -> None:
    assert len(read(server, PATH).json["days"]) == 30


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"start": "2026-01-13T00:00:00Z"}, "bad_parameter", "start: "),
        ({"start": "2026-01-14", "end": "2026-01-13"}, "bad_parameter", "end: is before start"),
        ({"start": "2020-01-13", "end": "2026-01-13"}, "bad_parameter", "at most 366 days"),
        ({"gap_s": "0"}, "bad_parameter", "gap_s: "),
        ({"gap_s": "nan"}, "bad_parameter", "gap_s: "),
        ({"outlier_z": "-1"}, "bad_parameter", "outlier_z: "),
        ({"late_s": "soon"}, "bad_parameter", "late_s: "),
        ({"page_token": "AAAAAAAAAAAA"}, "bad_parameter", "page_token: "),
        ({"limit": "10001"}, "bad_parameter", "limit: "),
    ],
)
def test_what_makes_no_sense_is_refused(server: Server, params: dict[str, str], code: str, words: str) -> None:
    for path in (PATH, f"{PATH}/gaps"):
        status, told, message = refusal(server, path, **params)
        assert (status, told) == (400, code)
        assert words in message
    assert refusal(server, "/api/coverage/NOBODY")[:2] == (404, "unknown_symbol")


@pytest.mark.long
def test_the_command_shows_what_the_interface_answers(server: Server) -> None:
    dates = ("--start", "2026-01-12", "--end", "2026-01-15")
    lines = command(server, "made", *dates).decode().splitlines()
    assert lines[0].split()[:4] == ["symbol", "day", "ticks", "open"]
    told = [line.split() for line in lines[1:]]
    assert [line[1] for line in told] == ["2026-01-12", "2026-01-13", "2026-01-14"]
    words = ["MADE", "2026-01-13", "758", "6:30:00", "96.7", "%", "2", "0:10:30", "1", "1", "2", "20", "758", "0", "0"]
    assert told[1] == words
    served = read(server, PATH, start="2026-01-12", end="2026-01-15").json["days"]
    found = json.loads(command(server, "MADE", *dates, "--format", "json"))["days"]
    assert found == [{"symbol": "MADE", **row} for row in served]
    gaps = list(csv.DictReader(io.StringIO(command(server, *dates, "--what", "gaps", "--gap-s", "120").decode())))
    assert {(row["symbol"], row["timestamp"][:10]) for row in gaps} >= {("MADE", "2026-01-13"), ("EMPTY", "2026-01-12")}
    assert b"unknown symbol: NOBODY" in command(server, "NOBODY", expect=1)
    assert b"--format" in command(server, "MADE", "--what", "gaps", "--format", "table", expect=2)
    assert b"at most 366 days" in command(server, "MADE", "--start", "2020-01-01", expect=1)


@pytest.mark.parametrize("symbols", [["MADE"], ["MADE", "EMPTY"]])
def test_the_picture_has_the_colours_of_what_is_there(server: Server, symbols: list[str], tmp_path: Path) -> None:
    file = tmp_path / "coverage.png"
    command(server, *symbols, "--start", "2026-01-12", "--end", "2026-01-19", "--png", str(file))
    with Image.open(file) as image:
        assert image.format == "PNG"
        counts = {colour: number for number, colour in image.convert("RGB").getcolors(1 << 20) or []}

    def pixels(band: int) -> int:
        colour = BANDS[band][1]
        return counts[tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))]

    cell, in_legend = 27 * 15, 15 * 15
    # Of five days one has ticks; of its seven hours one has the long hole, one the short one.
    nothing = 4 * 7 if len(symbols) == 1 else 4 + 5
    assert [pixels(5), pixels(2)] == [nothing * cell + in_legend, cell + in_legend]
