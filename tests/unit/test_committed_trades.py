"""The pure parts of live trades: what is told of a commit, cursors, following commits, bars that are due."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadParameter, TickhubError
from app.market.columns import StoredTicks
from app.market.committed import Committed, Touched, Trades, committed_rows
from app.market.positions import Positions, TradeKey
from app.stream import following
from app.stream.bar_watch import LATE_US, BarWatch
from app.stream.following import Follower
from app.stream.messages import BarUpdate
from app.stream.replay import Replay
from app.stream.trades import (
    Bounds,
    Since,
    cursor_of,
    later_updates,
    live_updates,
    parse_since,
    place_of,
    replayed_updates,
)

NOON_US = 1_768_305_600_000_000
A, B = 0xA1B2C3D4E5F6, 0x000000000007


def trades(journal: int, *received_us: int, flags: int = 24) -> Trades:
    n = len(received_us)
    return Trades(
        ["TSLA"],
        np.zeros(n, np.int32),
        np.array([NOON_US + us for us in received_us], np.int64),
        np.array(received_us, float),
        np.ones(n),
        np.full(n, flags, np.int32),
        np.full(n, journal, np.int64),
        np.array(received_us, np.int64),
    )


def commit(journal: int, before_us: int, after_us: int, *received_us: int) -> Committed:
    return Committed(journal, before_us, after_us, trades(journal, *received_us))


# ---- what is told of a commit


def stored_rows(rows: list[tuple[int, int, int, int]]) -> StoredTicks:
    """Return rows of (symbol_id, time_us, received_us, flags)."""
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    f8 = columns[1].astype(float)
    return StoredTicks(
        columns[0].astype(np.int32), columns[1], columns[2], f8, f8, f8, f8, f8, columns[3].astype(np.int32),
        np.zeros(len(rows), np.int32), columns[2], columns[2], np.zeros(len(rows), np.bool_),
    )  # fmt: skip


def test_a_commit_tells_its_trades_in_order_of_arrival_and_what_it_touched() -> None:
    parts = [
        stored_rows([(1, 50, 13, 8), (1, 70, 11, 6), (2, 10, 14, 8)]),
        stored_rows([(1, 40, 12, 24), (3, 90, 15, 6)]),
    ]
    found = committed_rows(A, 10, 15, parts, {1: "TSLA", 2: "NVDA", 3: "VIX"})
    assert found.trades.received_us.tolist() == [12, 13, 14]
    assert [found.trades.names[i] for i in found.trades.symbol] == ["TSLA", "TSLA", "NVDA"]
    assert found.touched == [Touched("TSLA", 40, 70), Touched("NVDA", 10, 10), Touched("VIX", 90, 90)]


def test_a_commit_is_the_same_after_its_way_as_bytes() -> None:
    said = committed_rows(A, 10, 15, [stored_rows([(1, 50, 13, 8), (2, 10, 14, 6)])], {1: "TSLA", 2: "Ö"})
    heard = Committed.decode(said.encode())
    assert heard.encode() == said.encode()
    assert (heard.journal, heard.before_us, heard.after_us, heard.touched) == (A, 10, 15, said.touched)
    assert heard.trades.journal.tolist() == [A]
    nothing = committed_rows(A, 10, 15, [], {})
    assert Committed.decode(nothing.encode()).touched == []


@given(st.binary(max_size=80), st.integers(0, 90))
def test_other_bytes_are_refused(garbage: bytes, cut: int) -> None:
    whole = committed_rows(A, 10, 15, [stored_rows([(1, 50, 13, 8)])], {1: "TSLA"}).encode()
    for data in (garbage, whole[:cut], whole[:cut] + garbage):
        if data != whole:
            try:
                Committed.decode(data)
            except TickhubError:
                continue
            assert len(data) >= 37  # by chance it is one


@pytest.mark.parametrize(
    "changes",
    [
        {"journal": -1},
        {"journal": 1 << 48},
        {"before_us": -1},
        {"before_us": 13, "after_us": 13},
        {"before_us": 11},
        {"after_us": 11},
        {"after_us": 1 << 60},
        {"touched": [Touched("TSLA", 5, 1 << 60)]},
        {"touched": [Touched("TSLA", 5, 4)]},
        {"time_us": 1 << 60},
        {"received_us": 11},
    ],
)
def test_a_commit_that_no_flush_can_have_made_is_refused(changes: dict[str, Any]) -> None:
    """Somebody else writes on the channel: a key or a position that no cursor takes would spoil all that follow."""
    said = commit(A, 10, 13, 11, 12)
    Committed.decode(said.encode())
    for name, value in changes.items():
        if hasattr(said, name):
            setattr(said, name, value)
        else:
            getattr(said.trades, name)[:] = value
    with pytest.raises(TickhubError):
        Committed.decode(said.encode())


def test_the_pieces_of_a_commit_follow_each_other() -> None:
    whole = Committed(A, 1, 20, trades(A, *range(2, 9)), [Touched("TSLA", 1, 2)])
    pieces = list(whole.pieces(3))
    assert [(p.before_us, p.after_us, len(p.trades)) for p in pieces] == [(1, 4, 3), (4, 7, 3), (7, 20, 1)]
    assert [p.touched for p in pieces] == [whole.touched, [], []]
    assert len(list(commit(A, 1, 2).pieces(3))) == 1


# ---- cursors


def test_a_cursor_gives_its_positions_back() -> None:
    positions = Positions(NOON_US, {A: NOON_US + 5, B: 0})
    assert parse_since(cursor_of(positions)) == Since(positions)
    assert place_of(cursor_of(positions, A)) == (positions, A, NOON_US + 5)
    assert parse_since(cursor_of(Positions())) == Since(Positions())


def test_live_trades_move_the_positions_and_each_cursor_has_seen_just_its_own() -> None:
    positions = Positions(NOON_US, {B: 3})
    made = live_updates(trades(A, 5, 9), positions)
    assert positions.done_us == {B: 3, A: 9}
    assert [parse_since(update.cursor).positions.done_us for update in made] == [{B: 3, A: 5}, {B: 3, A: 9}]  # type: ignore[union-attr]


def test_a_replayed_trades_cursor_has_seen_what_arrived_up_to_it() -> None:
    until = Positions(NOON_US, {A: 9, B: 6})
    rows = trades(A, 2, 4, 4, 9)
    rows.journal[2] = B
    made = replayed_updates(rows, [Bounds(1, A, 1, 9), Bounds(2, B, 3, 6)], until)
    assert [parse_since(update.cursor).positions.done_us for update in made] == [  # type: ignore[union-attr]
        {A: 2, B: 3},
        {A: 4, B: 3},
        {A: 4, B: 4},
        {A: 9, B: 6},
    ]
    assert [place_of(update.cursor)[1:] for update in made] == [(A, 2), (A, 4), (B, 4), (A, 9)]


def test_a_cursor_of_a_replay_by_time_goes_on_behind_its_trade() -> None:
    until, key = Positions(NOON_US, {A: 9}), TradeKey(NOON_US, 7, -(1 << 63), 5, 2)
    (made,) = later_updates(trades(A, 5), [key], until)
    assert parse_since(made.cursor) == Since(until, NOON_US, key)


@pytest.mark.parametrize(
    "text", ["", "p", "t", "p.", "t.", "pAAAA.AAAA", "p\N{SNOWMAN}.", "p" + "A" * 40_000, "yesterday", "\0"]
)
def test_what_is_no_cursor_and_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        parse_since(text)


@given(st.text(alphabet="ptAZaz09-_.=+/ ", max_size=60), st.integers(0, 60))
def test_garbage_never_breaks_anything(garbage: str, cut: int) -> None:
    whole = cursor_of(Positions(NOON_US, {A: 5, B: 0}), A)
    for text in (garbage, whole[:cut] + garbage, whole[:cut]):
        try:
            found = parse_since(text)
        except BadParameter:
            continue
        assert found.positions is not None or found.later_us is not None


@pytest.mark.parametrize(("flags", "side"), [(8, None), (24, None), (40, "buy"), (72, "sell"), (104, None)])
def test_the_side_is_whose_flag_there_is(flags: int, side: str | None) -> None:
    (made,) = live_updates(trades(A, 5, flags=flags), Positions())
    assert (made.side, made.price, made.timestamp) == (side, 5.0, "2026-01-13T12:00:00.000005Z")


# ---- following


class Heard:
    def __init__(self, positions: Positions | None) -> None:
        self.received_us: list[int] = []
        self.follower = Follower(lambda taken, _: self.received_us.extend(taken.received_us.tolist()))
        self.follower.positions = positions

    def hear(self, *commits: Committed) -> None:
        for one in commits:
            self.follower.hear(one)


def test_a_commit_is_taken_once_and_in_order() -> None:
    heard = Heard(Positions(0, {A: 10}))
    heard.hear(commit(A, 10, 12, 11, 12), commit(A, 10, 12, 11, 12), commit(A, 12, 13, 13), commit(B, 0, 5, 4))
    assert heard.received_us == [11, 12, 13, 4]
    assert not heard.follower.hole


def test_a_hole_is_seen_and_what_is_behind_it_waits() -> None:
    heard = Heard(Positions(0, {A: 10}))
    heard.hear(commit(A, 12, 14, 13), commit(A, 14, 15, 15), commit(B, 0, 5, 4))
    assert heard.received_us == [4]
    assert heard.follower.hole
    assert heard.follower.begin_reading().done_us == {A: 10, B: 5}
    heard.hear(commit(B, 5, 6, 6))
    assert heard.received_us == [4]
    heard.follower.end_reading(Positions(0, {A: 14, B: 5}), whole=True)
    assert heard.received_us == [4, 15, 6]
    assert not heard.follower.hole


def test_a_hole_that_could_not_be_read_to_its_end_stays() -> None:
    heard = Heard(Positions(0, {A: 10}))
    heard.hear(commit(A, 12, 14, 13))
    heard.follower.end_reading(heard.follower.begin_reading(), whole=False)
    assert heard.follower.hole
    assert heard.received_us == []
    heard.follower.begin_reading()
    heard.follower.end_reading(Positions(0, {A: 12}), whole=True)
    assert heard.received_us == [13]


def test_what_is_heard_before_the_positions_are_known_counts_from_where_it_began() -> None:
    heard = Heard(None)
    heard.hear(commit(A, 10, 12, 11, 12), commit(A, 12, 13, 13), commit(B, 0, 5, 4))
    heard.follower.begin(Positions(1, {A: 13, B: 5, 0xC: 9}))
    assert heard.received_us == [11, 12, 13, 4]
    assert heard.follower.positions == Positions(1, {A: 13, B: 5, 0xC: 9})
    assert not heard.follower.hole


def test_what_is_not_to_be_taken_is_left_to_be_read() -> None:
    heard = Heard(Positions(0, {A: 10}))
    heard.follower.hear(commit(A, 10, 12, 11), take=False)
    assert heard.received_us == []
    assert heard.follower.hole
    heard.hear(commit(A, 12, 13, 13))
    assert heard.follower.begin_reading() == Positions(0, {A: 10})
    heard.follower.end_reading(Positions(0, {A: 12}), whole=True)
    assert heard.received_us == [13]


def test_a_commit_that_was_seen_in_part_is_taken_in_part() -> None:
    """Somebody put the database back to an older state; what comes again was shown."""
    heard = Heard(Positions(0, {A: 12}))
    heard.hear(commit(A, 0, 15, 11, 12, 13))
    assert heard.received_us == [13]


def test_too_much_to_hold_is_read_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MAX_HELD", 3)
    heard = Heard(None)
    heard.hear(commit(A, 0, 1, 1), commit(A, 1, 2, 2), commit(A, 2, 3, 3))
    heard.follower.begin(Positions(0, {A: 3}))
    assert heard.follower.hole
    assert heard.follower.begin_reading() == Positions(0, {A: 0})
    heard.follower.end_reading(Positions(0, {A: 2}), whole=True)
    assert heard.received_us == [3]


def test_a_journal_that_entered_counts_from_where_it_did_and_a_finished_one_is_left_out() -> None:
    heard = Heard(Positions(1, {A: 10}))
    before = heard.follower.begin_reading().copy()
    heard.follower.end_reading(before.copy(), whole=True)
    heard.hear(commit(0xC, 0, 3, 3))
    heard.follower.update(before, Positions(9, {B: 20}), {B: 15})
    assert heard.follower.positions == Positions(9, {B: 15, 0xC: 3})
    heard.hear(commit(B, 15, 20, 20))
    assert heard.received_us == [3, 20]


def test_a_journal_that_goes_on_while_it_is_left_out_stays() -> None:
    heard = Heard(Positions(1, {A: 10, B: 5}))
    before = Positions(1, {A: 10, B: 5})
    heard.hear(commit(A, 10, 12, 12))
    heard.follower.update(before, Positions(1), {})
    assert heard.follower.positions == Positions(1, {A: 12})


# ---- handing over


def test_what_is_held_is_sent_unless_the_plan_had_it() -> None:
    positions, replay = Positions(1, {A: 1, B: 1}), Replay()
    early = live_updates(trades(A, 2, 3), positions)
    replay.hold()
    assert list(replay.live(early)) == []
    assert replay.reached(Positions(1, {A: 2, B: 8}))
    (late,) = replay.release()
    assert late.price == 3
    # The cursor has seen what the plan had, though the worker has not yet.
    assert parse_since(late.cursor).positions == Positions(1, {A: 3, B: 8})
    assert list(replay.live(live_updates(trades(B, 7, 8), positions))) == []
    assert not replay.done
    passed = live_updates(trades(B, 9), positions)
    assert list(replay.live(passed)) == passed
    assert replay.done


def test_too_much_while_reading_asks_for_another_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.stream.replay.MAX_HELD", 1)
    positions, replay = Positions(), Replay()
    replay.hold()
    replay.live(live_updates(trades(A, 1, 2), positions))
    assert not replay.reached(Positions(1, {A: 0}))
    replay.hold()
    replay.live(live_updates(trades(A, 3), positions))
    assert replay.reached(Positions(1, {A: 2}))
    assert [update.price for update in replay.release()] == [3]


# ---- bars


def bar(minute: int, close: float, *, complete: bool = False) -> BarUpdate:
    return BarUpdate("TSLA", "1m", f"2026-01-13T12:{minute:02d}:00.000000Z", 1, 2, 1, close, 0, 1, complete)


def test_bars_are_read_at_most_so_often_and_with_all_that_came_meanwhile() -> None:
    watch = BarWatch()
    watch.watch({"TSLA": {"1m"}}, NOON_US)
    assert watch.take(0.0, 10) == {("TSLA", "1m"): (NOON_US - LATE_US, NOON_US)}
    watch.touch("TSLA", ["1m", "5m"], 5, 7)
    watch.touch("TSLA", ["1m"], 3, 6)
    assert watch.take(0.2, 10) == {}
    assert watch.take(0.3, 10) == {("TSLA", "1m"): (3, 7)}
    assert watch.take(9.0, 10) == {}


def test_only_bars_that_changed_are_sent_and_one_closes_by_the_clock() -> None:
    watch, key = BarWatch(), ("TSLA", "1m")
    watch.watch({"TSLA": {"1m"}}, NOON_US)
    watch.take(0.0, 10)
    assert watch.changed(key, [bar(0, 1.5)], [NOON_US]) == [bar(0, 1.5)]
    assert watch.changed(key, [bar(0, 1.5)], [NOON_US]) == []
    watch.close(NOON_US + 59_999_999)
    assert watch.take(1.0, 10) == {}
    watch.close(NOON_US + 60_000_000)
    assert watch.take(1.0, 10) == {key: (NOON_US, NOON_US)}
    assert watch.changed(key, [bar(0, 1.5, complete=True)], [NOON_US]) == [bar(0, 1.5, complete=True)]
    watch.close(NOON_US + 600_000_000)
    assert watch.take(2.0, 10) == {}
    watch.watch({}, NOON_US)
    watch.touch("TSLA", ["1m"], 1, 2)
    assert watch.take(3.0, 10) == {}


def test_each_bar_closes_though_the_next_one_runs_before_its_last_ticks_can_be_there() -> None:
    """Ticks go on; until a flush may have taken its share of time, the bar that ended is not complete."""
    watch, key = BarWatch(), ("TSLA", "1m")
    minute_us = 60_000_000
    watch.watch({"TSLA": {"1m"}}, NOON_US)
    watch.take(0.0, 10)
    watch.changed(key, [bar(0, 1.5)], [NOON_US])
    watch.changed(key, [bar(0, 1.6), bar(1, 1.7)], [NOON_US, NOON_US + minute_us])
    watch.changed(key, [bar(1, 1.8)], [NOON_US + minute_us])
    watch.close(NOON_US + minute_us)
    assert watch.take(1.0, 10) == {key: (NOON_US, NOON_US)}
    closed = [bar(0, 1.6, complete=True), bar(1, 1.8)]
    assert watch.changed(key, closed, [NOON_US, NOON_US + minute_us]) == closed[:1]
    watch.close(NOON_US + 2 * minute_us)
    assert watch.take(2.0, 10) == {key: (NOON_US + minute_us,) * 2}


def test_a_bar_that_did_not_change_is_not_sent_again_however_old_it_is() -> None:
    watch, key = BarWatch(), ("TSLA", "1m")
    watch.watch({"TSLA": {"1m"}}, NOON_US)
    bars = [bar(minute, 1.5, complete=True) for minute in range(60)]
    starts_us = [NOON_US + minute * 60_000_000 for minute in range(60)]
    assert watch.changed(key, bars, starts_us) == bars
    bars[7] = bar(7, 2.5, complete=True)
    assert watch.changed(key, bars, starts_us) == bars[7:8]


def test_who_comes_later_gets_the_running_bar_too() -> None:
    watch = BarWatch()
    watch.watch({"TSLA": {"1m"}}, NOON_US)
    assert watch.running(None, "1m") == []
    watch.changed(("TSLA", "1m"), [bar(0, 1.5, complete=True), bar(1, 2.5)], [NOON_US, NOON_US + 60_000_000])
    watch.changed(("TSLA", "1m"), [bar(0, 1.6, complete=True)], [NOON_US])
    assert watch.running(None, "1m") == watch.running(["TSLA"], "1m") == [bar(1, 2.5)]
    assert watch.running(["NVDA"], "1m") == watch.running(None, "5m") == []
    watch.changed(("TSLA", "1m"), [bar(1, 2.5, complete=True)], [NOON_US + 60_000_000])
    assert watch.running(None, "1m") == []
