"""The bridge's reading of a MetaTrader 5 terminal that behaves as documented."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bridge_stand_in.loading import Ear, load, open_spool, unsent
from tests.bridge_stand_in.terminal import StandInTerminal, Ticks

bridge = load()

T0 = 1_768_327_200_000  # 2026-01-13 18:00:00 on the broker's clock
HOUR = 3_600_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each doubt is given up when the terminal says the same a second time."""
    for name in ("GAP_PATIENCE_S", "ERROR_PATIENCE_S", "ANCHOR_PATIENCE_S"):
        monkeypatch.setattr(bridge, name, 0.0)


class Reader:
    """A bridge's reading side over a stand-in terminal; `restart` is a death and a new start."""

    def __init__(self, path: Path) -> None:
        self.mt5 = StandInTerminal()
        self.path, self.symbols, self.since = path, {"XAUUSD": "XAUUSD"}, T0
        self.max_rows = 1_000_000
        self.spool: Any = None
        self.restart()

    def restart(self) -> None:
        if self.spool is not None:
            self.spool.close()
        self.spool, self.ear = open_spool(self.path, self.max_rows), Ear()
        self.terminal = bridge.Terminal(self.mt5, self.symbols, self.spool, self.ear, self.since)

    def poll(self, times: int = 1) -> int:
        rows = 0
        for _ in range(times):
            self.terminal._read_at = dict.fromkeys(self.symbols, 0.0)
            self.terminal._retry_at = 0.0
            rows += self.terminal.poll()
        return rows

    def rows(self) -> list[dict[str, Any]]:
        return unsent(self.spool)

    def identities(self) -> list[tuple[int, int, int]]:
        return [(row["time_msc"] - T0, row["seq"], row.get("fold", 0)) for row in self.rows()]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path / "spool.db")
    yield made
    made.spool.close()


def quote(ms: int, bid: float = 1310.0) -> tuple[int, float, float, int]:
    return T0 + ms, bid, bid + 0.3, 6


def test_ticks_of_one_millisecond_are_numbered_in_their_order(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(5), quote(7), quote(7), quote(7), quote(1200))
    reader.poll()
    assert reader.identities() == [(5, 0, 0), (7, 0, 0), (7, 1, 0), (7, 2, 0), (1200, 0, 0)]


def test_a_tick_that_comes_later_into_a_millisecond_already_read_gets_the_next_number(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(5), quote(7))
    assert reader.poll() == 2
    reader.mt5.arrive("XAUUSD", quote(7, 1311.0))
    assert reader.poll() == 1
    reader.restart()
    reader.mt5.arrive("XAUUSD", quote(7, 1312.0), quote(8))
    assert reader.poll() == 2
    assert reader.identities() == [(5, 0, 0), (7, 0, 0), (7, 1, 0), (7, 2, 0), (8, 0, 0)]
    assert [row["bid"] for row in reader.rows()] == [1310.0, 1310.0, 1311.0, 1312.0, 1310.0]


def test_asking_again_from_the_whole_second_takes_nothing_twice(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", *(quote(ms) for ms in (10, 10, 500, 999)))
    reader.poll(3)
    reader.restart()
    reader.poll(3)
    assert reader.identities() == [(10, 0, 0), (10, 1, 0), (500, 0, 0), (999, 0, 0)]


def mangled(rng: random.Random) -> Callable[[Ticks], tuple[Ticks | None, tuple[int, str]]]:
    kind, share = rng.choice(("none", "prefix", "no beginning", "holes, with an error")), rng.random()

    def change(ticks: Ticks) -> tuple[Ticks | None, tuple[int, str]]:
        cut = int(share * (len(ticks) + 1))
        if kind == "none":
            return None, (-10005, "IPC timeout")
        if kind == "prefix":
            return ticks[:cut], (1, "Success")
        if kind == "no beginning":
            return ticks[cut:], (1, "Success")
        return ticks[np.arange(len(ticks)) != cut], (-10, "history timeout")

    return change


def test_whatever_the_terminal_leaves_out_of_an_answer_no_tick_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ERROR_PATIENCE_S", "ANCHOR_PATIENCE_S"):
        monkeypatch.setattr(bridge, name, 1e9)
    for seed in range(10):
        rng = random.Random(seed)
        reader = Reader(tmp_path / f"{seed}.db")
        expected = [quote(0), quote(1)]
        reader.mt5.arrive("XAUUSD", *expected)
        reader.poll()  # the first answer has nothing yet to be held against
        ms = 1
        for _ in range(40):
            fresh = []
            for _ in range(rng.randint(1, 6)):
                ms += rng.choice((0, 0, 0, 1, 40, 1500))
                fresh.append(quote(ms, round(rng.uniform(1300, 1320), 2)))
            reader.mt5.arrive("XAUUSD", *fresh)
            expected += fresh
            reader.mt5.answers = [mangled(rng) for _ in range(rng.randint(0, 3))]
            reader.poll(rng.randint(1, 4))
            if rng.random() < 0.2:
                reader.restart()
        reader.mt5.answers = []
        reader.poll(2)
        got = [(row["time_msc"], row["bid"]) for row in reader.rows()]
        assert got == [tick[:2] for tick in expected], f"seed {seed}"
        identities = [(row["time_msc"], row["seq"]) for row in reader.rows()]
        assert len(set(identities)) == len(identities), f"seed {seed}"
        reader.spool.close()


def test_an_answer_without_the_tick_read_last_is_not_believed(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(10), quote(20))
    reader.poll()
    reader.mt5.arrive("XAUUSD", quote(30), quote(40))
    reader.mt5.answers = [lambda ticks: (ticks[3:], (1, "Success"))]
    assert reader.poll() == 0
    reader.poll()
    assert [key[0] for key in reader.identities()] == [10, 20, 30, 40]


def test_when_the_broker_took_the_tick_out_of_its_history_the_reading_goes_on(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(10), quote(20))
    reader.poll()
    history = reader.mt5.symbols["XAUUSD"]
    history.ticks = history.ticks[:1]
    reader.mt5.arrive("XAUUSD", quote(30))
    reader.poll(2)
    assert [key[0] for key in reader.identities()] == [10, 20, 30]
    assert reader.ear.heard("left the history")


def test_an_answer_that_comes_with_an_error_is_asked_for_again(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(10), quote(20), quote(30))
    reader.mt5.answers = [lambda ticks: (ticks[1:], (-10, "history timeout"))]
    assert reader.poll() == 0
    assert reader.poll() == 3
    assert reader.ear.heard("came with an error")


def test_a_failure_is_not_taken_for_no_ticks(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(10))
    reader.mt5.answers = [lambda ticks: (None, (-10005, "IPC timeout"))]
    assert reader.poll() == 0
    assert reader.ear.heard("(-10005, 'IPC timeout')")
    assert reader.poll() == 1


def test_a_terminal_that_is_closed_and_opened_again_is_found_again(reader: Reader) -> None:
    reader.mt5.running = False
    assert reader.poll() == 0
    assert reader.ear.heard("is MetaTrader 5 running?")
    reader.mt5.running = True
    reader.mt5.arrive("XAUUSD", quote(10))
    assert reader.poll() == 1
    reader.mt5.running = False
    reader.poll()
    reader.mt5.arrive("XAUUSD", quote(20))
    reader.mt5.running = True
    assert reader.poll(2) == 1


def test_a_second_with_more_ticks_than_one_reading_holds_is_read_through(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "READ_ROWS", 5)
    reader.mt5.arrive("XAUUSD", *(quote(100 + at // 7) for at in range(60)))
    reader.poll(20)
    assert reader.identities() == [(100 + at // 7, at % 7, 0) for at in range(60)]


def test_a_history_longer_than_one_reading_is_read_to_its_end(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "READ_ROWS", 10)
    reader.mt5.arrive("XAUUSD", *(quote(at * 137) for at in range(200)))
    reader.poll(60)
    assert [key[0] for key in reader.identities()] == [at * 137 for at in range(200)]


def test_flags_and_stale_repeats_go_on_as_the_terminal_gives_them(reader: Reader) -> None:
    reader.mt5.arrive(
        "XAUUSD",
        (T0, 1310.0, 1310.3, 1080, 1310.1, 3, 2.5),
        (T0 + 1, 1310.0, 1310.4, 134, 1310.1, 3, 0.0),
        (T0 + 2, 0.0, 1310.4, 4, 0.0, 0, 0.0),
    )
    reader.poll()
    rows = reader.rows()
    assert [row["flags"] for row in rows] == [1080, 134, 4]
    assert [row["volume"] for row in rows] == [2.5, 3, 0]
    assert [row["last"] for row in rows] == [1310.1, 1310.1, 0.0]
    assert [row["spread"] for row in rows] == [30, 40, None]


def test_spread_is_left_to_the_server_where_the_terminal_gives_no_point(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(1), point=0.0)
    reader.poll()
    assert reader.rows()[0]["spread"] is None


def test_without_since_the_first_reading_begins_with_the_newest_tick_and_is_remembered(
    reader: Reader,
) -> None:
    reader.since = None
    reader.restart()
    reader.poll()
    reader.mt5.arrive("XAUUSD", quote(10), quote(20), quote(20))
    reader.mt5.answers = [lambda ticks: (None, (-1, "fail"))]
    assert reader.poll() == 0
    reader.restart()
    reader.mt5.arrive("XAUUSD", quote(30))
    reader.poll()
    assert reader.identities() == [(20, 0, 0), (20, 1, 0), (30, 0, 0)]


def test_symbols_go_by_the_servers_names_and_keep_cursors_of_their_own(reader: Reader) -> None:
    reader.symbols = {"XAUUSD.m": "XAUUSD", "EURUSD": "EURUSD"}
    reader.restart()
    reader.mt5.arrive("XAUUSD.m", quote(10), quote(10))
    reader.mt5.arrive("EURUSD", quote(10))
    reader.poll()
    assert [(row["symbol"], row["seq"]) for row in reader.rows()] == [
        ("XAUUSD", 0),
        ("XAUUSD", 1),
        ("EURUSD", 0),
    ]


def test_an_unknown_symbol_is_said_and_the_others_are_read(reader: Reader) -> None:
    reader.symbols = {"NOPE": "NOPE", "XAUUSD": "XAUUSD"}
    reader.restart()
    reader.mt5.arrive("XAUUSD", quote(10))
    assert reader.poll() == 1
    assert reader.ear.heard("NOPE: the terminal does not know it")


def test_a_long_silence_is_asked_about_again_before_it_is_passed(reader: Reader) -> None:
    reader.mt5.arrive("XAUUSD", quote(10))
    reader.poll()
    reader.mt5.arrive("XAUUSD", quote(HOUR), quote(50 * HOUR))
    reader.mt5.answers = [lambda ticks: (ticks[[0, 2]], (1, "Success"))]
    assert reader.poll() == 0
    assert reader.poll() == 1
    assert reader.poll(2) == 1
    assert reader.ear.heard("no ticks between")
    assert [key[0] for key in reader.identities()] == [10, HOUR, 50 * HOUR]


def set_back_ticks() -> tuple[list[int], list[int]]:
    """Two passes through the hour, ending and beginning in shared milliseconds, and what comes behind."""
    rng = random.Random(4)
    first = [*sorted(rng.randint(0, HOUR) for _ in range(300)), HOUR, HOUR]
    second = [*sorted(rng.randint(10, HOUR) for _ in range(300)), HOUR, HOUR, HOUR + 1, HOUR + 900]
    return [ms + HOUR for ms in first], [ms + HOUR for ms in second]


def expected_keys(first: list[int], second: list[int]) -> list[tuple[int, int, int]]:
    keys: list[tuple[int, int, int]] = []
    for times, fold in ((first, 0), (second, 1)):
        for at, ms in enumerate(times):
            keys.append((ms, times[:at].count(ms), fold))
    return keys


@pytest.mark.parametrize("chunk", [5, 60, 400])
def test_an_hour_that_the_clock_runs_through_twice_is_kept_apart(reader: Reader, chunk: int) -> None:
    first, second = set_back_ticks()
    reader.since = T0 + HOUR
    reader.restart()
    for times in (first, second):
        for at in range(0, len(times), chunk):
            reader.mt5.arrive("XAUUSD", *(quote(ms) for ms in times[at : at + chunk]))
            reader.poll()
            if at % (5 * chunk) == 0:
                reader.restart()
    reader.poll(3)
    assert reader.identities() == expected_keys(first, second)


def test_where_the_history_is_sorted_nothing_of_the_second_pass_is_made_up(reader: Reader) -> None:
    first, second = set_back_ticks()
    reader.mt5.sorted_history = True
    reader.since = T0 + HOUR
    reader.restart()
    reader.mt5.arrive("XAUUSD", *(quote(ms) for ms in first))
    reader.poll(2)
    for at in range(0, len(second), 50):
        reader.mt5.arrive("XAUUSD", *(quote(ms) for ms in second[at : at + 50]))
        reader.poll(2)
    keys = reader.identities()
    assert len(set(keys)) == len(keys)
    assert [key for key in keys if key[0] <= 2 * HOUR - 1000] == [
        key for key in expected_keys(first, []) if key[0] <= 2 * HOUR - 1000
    ]
    assert {key[0] for key in keys} >= {2 * HOUR + 1, 2 * HOUR + 900}
    assert reader.ear.heard("its newest tick is of")


def test_a_symbol_whose_clock_makes_no_sense_stops_alone_and_says_so(reader: Reader) -> None:
    reader.symbols = {"XAUUSD": "XAUUSD", "EURUSD": "EURUSD"}
    reader.restart()
    reader.mt5.arrive("XAUUSD", quote(HOUR // 4), quote(HOUR // 2), quote(0), quote(HOUR // 2 + 1), quote(1))
    reader.mt5.arrive("EURUSD", quote(0))
    reader.poll(2)
    reader.mt5.arrive("EURUSD", quote(1))
    reader.poll()
    assert reader.ear.heard("XAUUSD: NO LONGER READ")
    assert sum(row["symbol"] == "EURUSD" for row in reader.rows()) == 2


def test_a_full_spool_stops_the_reading_and_later_nothing_is_missing(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "READ_ROWS", 10)
    reader.max_rows = 25
    reader.restart()
    reader.mt5.arrive("XAUUSD", *(quote(at) for at in range(100)))
    reader.poll(20)
    assert 25 <= len(reader.rows()) < 25 + 10
    assert reader.ear.heard("the spool is full")
    got = []
    while rows := reader.spool.head(1000):
        got += reader.identities()
        reader.spool.settle(rows, [], [], False)
        reader.poll(20)
    assert got == [(at, 0, 0) for at in range(100)]
