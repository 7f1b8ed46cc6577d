"""The bridge as a process: replays, killed and not, a terminal, a simulated market."""

from __future__ import annotations

import calendar
import gzip
import itertools
import random
import signal
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridge_stand_in.loading import load, running
from tests.bridge_stand_in.server import Row, StandInServer
from tests.real_market import REAL, real_data
from tests.waiting import wait_until

bridge = load()

HEADER = "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\r\n"
STAND_IN = Path(__file__).parents[1] / "bridge_stand_in"


@pytest.fixture
def server() -> Iterator[StandInServer]:
    made = StandInServer()
    yield made
    made.close()


def line(ms: int, bid: str = "", ask: str = "", last: str = "", volume: str = "", flags: int = 6) -> str:
    seconds, fraction = divmod(ms, 1000)
    hour, minute, second = seconds // 3600, seconds // 60 % 60, seconds % 60
    time = f"{hour:02}:{minute:02}:{second:02}.{fraction:03}"
    return f"2026.01.13\t{time}\t{bid}\t{ask}\t{last}\t{volume}\t{flags}\r\n"


def meant(lines: list[str], symbol: str) -> list[Row]:
    """What an export says, read plainly: the rows that the server has to hold."""
    rows: list[Row] = []
    seen: Counter[tuple[int, int]] = Counter()
    peak, earlier = -1, -1
    for text in lines:
        date, time, *values, flags = text.rstrip("\r\n").split("\t")
        year, month, day = (int(part) for part in date.split("."))
        clock, _, fraction = time.partition(".")
        hour, minute, second = (int(part) for part in clock.split(":"))
        ms = calendar.timegm((year, month, day, hour, minute, second)) * 1000 + int(fraction or 0)
        if ms <= peak - 1_800_000:
            earlier, peak = peak, ms
        peak = max(peak, ms)
        fold = int(ms <= earlier + 24 * 3_600_000)
        bid, ask, last, volume = (float(value) if value else None for value in values)
        row: Row = {
            "symbol": symbol,
            "bid": bid,
            "ask": ask,
            "last": last,
            "spread": None,
            "volume": volume or 0,
        }
        row |= {"flags": int(flags), "time_msc": ms, "seq": seen[ms, fold]} | ({"fold": 1} if fold else {})
        seen[ms, fold] += 1
        rows.append(row)
    return sorted(rows, key=lambda row: (row.get("fold", 0), row["time_msc"], row["seq"]))


def market(rows: int, seed: int) -> list[str]:
    """Quotes and trades, most sharing their millisecond, many equal; in the middle the clock is set back."""
    rng = random.Random(seed)
    ms, lines = 5_000_000, []
    for at in range(rows):
        ms += rng.choice((0, 0, 0, 1, 30, 400)) - (3_600_000 if at == rows // 2 else 0)
        kind = rng.randint(0, 3)
        price = f"{rng.randint(13000, 13010) / 10}"
        if kind == 0:
            lines.append(line(ms, last=price, volume="1.00000000", flags=24))
        else:
            lines.append(
                line(ms, bid=price if kind & 1 else "", ask=price if kind & 2 else "", flags=2 * kind)
            )
    return lines


def replay(
    server: StandInServer, path: Path, spool: Path, *arguments: str, symbol: str = "XAUUSD"
) -> tuple[int, str]:
    with running(
        "--url", server.url, "--replay", path, "--symbol", symbol, "--spool", spool, *arguments
    ) as process:
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


@pytest.mark.parametrize("form", ["plain", "bom", "utf-16", "utf-16-le", "gz", "zip", "no milliseconds"])
def test_an_export_is_read_in_every_form_it_comes_in(
    server: StandInServer, tmp_path: Path, form: str
) -> None:
    lines = [
        line(0, "0.00000", "0.00000", "0.00000", "0.00000000", 0),
        line(1000, "1310.1", "1310.4"),
        line(1000, "1310.1", "1310.4"),
        line(2000, ask="1310.5", flags=4),
        line(3000, last="1310.2", volume="7.00000000", flags=1080),
    ]
    if form == "no milliseconds":
        lines = [text.replace(".000\t", "\t", 1) for text in lines]
    text = HEADER + "".join(lines)
    encoding = {"bom": "utf-8-sig", "utf-16": "utf-16", "utf-16-le": "utf-16-le"}.get(form, "utf-8")
    path = tmp_path / "XAUUSD_202601130000_202601132359.csv"
    content = text.encode(encoding)
    if form == "gz":
        content = gzip.compress(content)
    path.write_bytes(content)
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ticks.csv", content)
    status, said = replay(server, path, tmp_path / "spool.db")
    assert status == 0, said
    assert server.stored() == meant(lines, "XAUUSD")
    assert (server.rows[0]["bid"], server.rows[3]["bid"], server.rows[3]["volume"]) == (0, None, 0)


def test_lines_that_cannot_be_read_are_counted_and_named(server: StandInServer, tmp_path: Path) -> None:
    good = [line(at * 10, "1.5", "1.6") for at in range(6)]
    bad = ["nonsense\r\n", line(25, "nan", "1.6"), line(26, "1,5"), line(27, "1.5").replace("01.13", "02.30")]
    text = HEADER + "".join(good[:3] + bad + ["\r\n"] + good[3:]) + "2026.01.13\t01:0"
    path = tmp_path / "EURUSD_x.csv"
    path.write_bytes(text.encode())
    status, said = replay(server, path, tmp_path / "spool.db", symbol="EURUSD")
    assert status == 0, said
    assert server.stored() == meant(good, "EURUSD")
    assert "5 lines cannot be read" in said
    named = (tmp_path / "EURUSD_x.csv.rejects").read_text().splitlines()
    assert [int(entry.split("\t")[0]) for entry in named] == [5, 6, 7, 8, 13]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"time,bid,ask\n1,2,3\n", "not an export of ticks"),
        (b"", "not an export of ticks"),
        (gzip.compress((HEADER + "".join(market(500, 1))).encode())[:-900], "line "),
        ((HEADER + line(80_000_000, "1") + line(5, "1")).encode(), "line 3: time goes back"),
    ],
    ids=["other", "empty", "cut gzip", "unsorted"],
)
def test_a_file_that_cannot_be_read_to_its_end_fails_with_the_line(
    server: StandInServer, tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "XAUUSD_x.csv"
    path.write_bytes(content)
    status, said = replay(server, path, tmp_path / "spool.db")
    assert status == 1
    assert why in said
    assert "Traceback" not in said
    assert len(server.rows) == len(server.stored())


def kill_until_done(
    server: StandInServer, path: Path, spool: Path, symbol: str, kills: int, seed: int
) -> int:
    """Replay with kill -9 at random moments and a server that drops answers; return how often it was resumed."""
    rng = random.Random(seed)
    resumed = 0
    # A small spool holds the reading back, so that deaths find the file half read.
    arguments = ["--symbol", symbol, "--spool", spool, "--batch", "400", "--spool-max-rows", "1000"]
    for _ in range(kills):
        server.faults = [rng.choice(["drop", "cut", (503, {"Retry-After": "0"}, b"{}")]) for _ in range(2)]
        goal = len(server.requests) + rng.randint(0, 14)
        with running("--url", server.url, "--replay", path, *arguments) as process:
            wait_until(lambda p=process, n=goal: p.poll() is not None or len(server.requests) >= n)
            process.kill()
            said, _ = process.communicate()
            resumed += "going on behind line" in said
    server.faults = []
    status, said = replay(server, path, spool, symbol=symbol)
    assert status == 0, said
    return resumed + ("going on behind line" in said)


@pytest.mark.long
def test_a_replay_killed_again_and_again_leaves_exactly_what_the_file_says(
    server: StandInServer, tmp_path: Path
) -> None:
    lines = market(24_000, 11)
    path = tmp_path / "XAUUSD_x.csv"
    path.write_bytes((HEADER + "".join(lines)).encode())
    assert kill_until_done(server, path, tmp_path / "spool.db", "XAUUSD", 8, seed=3) >= 3
    assert server.stored() == meant(lines, "XAUUSD")
    assert server.conflicts == []


@real_data
@pytest.mark.parametrize(
    "name",
    ["SPY_trades_20131008", "GCZ13_trades_20131007-09", "IBM_20131008-10", "XAUUSD_oanda_20140506-09"],
)
def test_real_ticks_killed_in_between_arrive_exactly(
    server: StandInServer, tmp_path: Path, name: str
) -> None:
    with gzip.open(Path(str(REAL)) / "ticks" / f"{name}.tsv.gz", "rt", newline="") as export:
        next(export)
        lines = [text for _, text in zip(range(8_000), export, strict=False)]
    path = tmp_path / f"{name}.tsv.gz"
    path.write_bytes(gzip.compress((HEADER + "".join(lines)).encode(), 1))
    kill_until_done(server, path, tmp_path / "spool.db", "X", 2, seed=len(name))
    assert server.stored() == meant(lines, "X")
    assert server.conflicts == []


def test_a_replay_of_a_file_already_sent_stores_nothing_twice(server: StandInServer, tmp_path: Path) -> None:
    path = tmp_path / "XAUUSD_x.csv"
    path.write_bytes((HEADER + "".join(market(600, 2))).encode())
    for _ in range(2):
        assert replay(server, path, tmp_path / "spool.db")[0] == 0
    assert (len(server.rows), len(server.stored()), server.conflicts) == (1200, 600, [])


def test_refused_rows_make_a_replay_fail_and_can_be_sent_again(server: StandInServer, tmp_path: Path) -> None:
    server.refuse = lambda row: ("unknown_symbol", "Unknown symbol: XAUUSD")
    lines = market(300, 5)
    path = tmp_path / "XAUUSD_x.csv"
    path.write_bytes((HEADER + "".join(lines)).encode())
    status, said = replay(server, path, tmp_path / "spool.db")
    assert status == 1
    assert "300 refused as unknown_symbol, as Unknown symbol: XAUUSD" in said
    server.refuse = lambda row: None
    with running("--url", server.url, "--spool", tmp_path / "spool.db", "--resend-refused") as process:
        assert process.wait(30) == 0
    assert server.stored() == meant(lines, "XAUUSD")


def test_ctrl_c_ends_cleanly_and_says_what_is_left(server: StandInServer, tmp_path: Path) -> None:
    lines = market(3_000, 6)
    path = tmp_path / "XAUUSD_x.csv"
    path.write_bytes((HEADER + "".join(lines)).encode())
    server.faults = [(503, {"Retry-After": "600"}, b"{}")]
    arguments = ["--url", server.url, "--replay", path, "--spool", tmp_path / "spool.db"]
    with running(*arguments) as process:
        wait_until(lambda: server.requests)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0, said
    assert "3000 left in" in said
    with running(*arguments) as process:
        assert process.wait(30) == 0
    assert server.stored() == meant(lines, "XAUUSD")


def test_speed_keeps_the_files_pace_and_its_rows(server: StandInServer, tmp_path: Path) -> None:
    lines = [line(at * 500, "1.5", "1.6") for at in range(20)]
    path = tmp_path / "EURUSD_x.csv"
    path.write_bytes((HEADER + "".join(lines)).encode())
    began = time.monotonic()
    assert replay(server, path, tmp_path / "spool.db", "--speed", "20", symbol="EURUSD")[0] == 0
    assert server.stored() == meant(lines, "EURUSD")
    # How many requests they are depends on how slow the disk is; none may come before the last row in it is due.
    sent = itertools.accumulate(rows for _, rows in server.arrived)
    assert [at_s >= began + (rows - 1) * 0.5 / 20 for (at_s, _), rows in zip(server.arrived, sent, strict=True)] == (
        [True] * len(server.arrived)
    )


def test_the_key_comes_from_the_environment_or_a_file_and_no_flag(
    server: StandInServer, tmp_path: Path
) -> None:
    server.api_key = "a-key-of-some-length"
    path = tmp_path / "EURUSD_x.csv"
    path.write_bytes((HEADER + line(1, "1.5")).encode())
    (tmp_path / "key").write_text(server.api_key + "\n")
    arguments = ["--url", server.url, "--replay", path, "--spool", tmp_path / "spool.db"]
    with running(*arguments, "--api-key-file", tmp_path / "key") as process:
        assert process.wait(30) == 0
    with running(*arguments, env={"TICKHUB_API_KEY": server.api_key}) as process:
        assert process.wait(30) == 0
    assert (len(server.rows), len(server.stored())) == (2, 1)
    with running(*arguments, "--api-key", server.api_key) as process:
        assert process.wait(30) == 2


def test_a_simulated_market_shares_milliseconds_trades_and_survives_kills(
    server: StandInServer, tmp_path: Path
) -> None:
    for stop in (signal.SIGKILL, signal.SIGINT):
        before = len(server.stored())
        arguments = [
            "--simulate",
            "--rate",
            "4000",
            "--symbols",
            "AAPL,TSLA",
            "--spool",
            tmp_path / "spool.db",
        ]
        with running("--url", server.url, *arguments) as process:
            wait_until(lambda n=before: len(server.by_identity) > n + 1000)
            process.send_signal(stop)
            process.communicate(timeout=30)
            assert process.returncode == (0 if stop == signal.SIGINT else -9)
    rows = server.stored()
    assert server.conflicts == []
    assert any(int(str(row["seq"])) > 0 for row in rows)
    assert {row["symbol"] for row in rows} == {"AAPL", "TSLA"}
    assert {8, 0} == {int(str(row["flags"])) & 8 for row in rows}


def terminal_rows(csv: str) -> list[tuple[Any, ...]]:
    seen: Counter[int] = Counter()
    rows = []
    for text in csv.splitlines()[1:]:
        _, _, bid, ask, _, _, ms, flags, _ = text.split(",")
        rows.append((int(ms), seen[int(ms)], float(bid), float(ask), int(flags)))
        seen[int(ms)] += 1
    return rows


def made_csv() -> str:
    rng = random.Random(8)
    ms, texts = 1_580_234_400_184, ["n,time,bid,ask,last,volume,time_msc,flags,volume_real"]
    for at in range(1000):
        ms += rng.choice((0, 0, 0, 1, 250, 1100))
        texts.append(f"{at},{ms // 1000},{1.6 + at / 1e5:.5f},{1.61 + at / 1e5:.5f},0.0,0,{ms},134,0.0")
    return "\n".join(texts)


@pytest.mark.long
@pytest.mark.parametrize("source", ["made", pytest.param("real", marks=real_data)])
def test_a_terminal_read_by_a_bridge_that_is_killed_again_and_again_is_read_exactly(
    server: StandInServer, tmp_path: Path, source: str
) -> None:
    csv = made_csv()
    if source == "real":
        packed = Path(str(REAL)) / "ticks" / "mt5_copy_ticks_sample.csv.gz"
        csv = gzip.decompress(packed.read_bytes()).decode()
    expected = terminal_rows(csv)
    path = tmp_path / "GBPUSD_ticks.csv"
    path.write_text(csv)
    rng = random.Random(9)
    arguments = [
        "--url",
        server.url,
        "--symbols",
        "GBPUSD",
        "--since",
        "2020-01-28 18:00",
        "--spool",
        tmp_path / "spool.db",
    ]
    env = {"MT5_STAND_IN": str(path), "PYTHONPATH": str(STAND_IN)}
    for last in (False, False, False, True):
        goal = len(expected) if last else len(server.by_identity) + rng.randint(20, 250)
        with running(*arguments, env=env, bare=False) as process:
            wait_until(lambda p=process, n=goal: p.poll() is not None or len(server.by_identity) >= n, 40)
            process.send_signal(signal.SIGINT if last else signal.SIGKILL)
            said, _ = process.communicate(timeout=30)
            assert process.returncode == (0 if last else -9), said
    got = [(row["time_msc"], row["seq"], row["bid"], row["ask"], row["flags"]) for row in server.stored()]
    assert got == sorted(expected)
    assert server.conflicts == []
