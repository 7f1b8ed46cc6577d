"""What is counted and told of a worker, its host and the database, each part by itself."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import gevent
import msgspec
import pytest
from gevent.monkey import get_original
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from psycopg2.errors import InsufficientPrivilege

from app import host_figures, request_ids, watch
from app.backup.following import FILE, Following
from app.errors import DatabaseAway
from app.host_figures import HostFigures
from app.meters import ReadMeters
from app.request_meters import MOST_SENDERS, RequestMeters, source_of
from app.storage.database_figures import DatabaseFigures, Job
from app.stream.frames import BadFrame
from app.watch import Watch
from app.web.log_lines import AccessLines, JsonLines, TextLines
from app.web.metrics import Families
from app.web.metrics_database import database_families
from app.web.metrics_host import host_families
from tests.backup_notes import a_note
from tests.waiting import others_turn, run_until

FIGURES = DatabaseFigures(
    server_version=180006, size_bytes=1000, max_connections=60, oldest_transaction_age=5, started_s=1.0,
    counted=dict.fromkeys(
        ("xact_commit", "xact_rollback", "blks_read", "blks_hit", "tup_returned", "tup_fetched", "tup_inserted",
         "tup_updated", "tup_deleted", "conflicts", "temp_bytes", "deadlocks"), 0
    ),
    sessions={}, locks={}, locks_waiting=0, slots={}, tables={}, alert_rules=0, alerts_to_post=0, late_ticks=0,
    tick_ranges={}, jobs={}, statements=None,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_request() -> None:
    """Forget what tests of requests left: they run in this greenlet too."""
    request_ids.adopt(None)


class Wire:
    """Stands for the bus."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.handler: Callable[[bytes], None] = lambda message: None

    def on(self, kind: int, handler: Callable[[bytes], None]) -> None:
        self.handler = handler

    def send(self, kind: int, payload: bytes) -> None:
        self.sent.append(payload)


class Asked:
    """Stands for the reads of a database that answers, or raises."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.count = 0

    def run(self, kind: object, fn: object) -> DatabaseFigures:
        self.count += 1
        if self.error is not None:
            raise self.error
        return FIGURES


def record(message: str, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("tickhub", logging.WARNING, "", 0, message, None, None)
    vars(made).update(more)
    return made


def test_figures_reach_those_who_do_not_ask_and_outlive_the_database() -> None:
    wire, other, reads = Wire(), Wire(), Asked()
    elected, listening = Watch(lambda: True, reads, wire), Watch(lambda: False, Asked(), other)  # type: ignore[arg-type]
    assert elected.figures is None
    elected.ask()
    other.handler(wire.sent[0])
    assert listening.figures == elected.figures == FIGURES
    reads.error = DatabaseAway("gone")
    elected.ask()
    assert elected.figures == FIGURES
    assert len(wire.sent) == 1
    assert 0 <= elected.age_s < 100


@pytest.mark.long
def test_only_the_elected_one_asks_and_not_all_the_time() -> None:
    is_elected, reads = [False], Asked()
    watching = Watch(lambda: is_elected[0], reads, Wire())  # type: ignore[arg-type]
    running = gevent.spawn(watching.run)
    gevent.sleep(0.05)  # in which it may not ask
    assert reads.count == 0
    is_elected[0] = True
    gevent.sleep(2.2)  # two of its looks
    running.kill()
    assert reads.count == 1


def test_one_who_is_not_elected_asks_when_nobody_tells_it_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "UNTOLD_S", (1.5, 1.5))
    monkeypatch.setattr(watch, "IDLE_S", 0.05)
    now = [0.0]
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    wire, reads, told = Wire(), Asked(), Asked()
    alone = Watch(lambda: False, reads, wire)  # type: ignore[arg-type]
    other = Watch(lambda: False, told, Wire())  # type: ignore[arg-type]
    running = [gevent.spawn(alone.run), gevent.spawn(other.run)]

    def asked() -> int:
        other._know(FIGURES)
        now[0] += 0.1
        return reads.count

    run_until(asked, "the one that hears nothing to ask", every_s=0.05)
    gevent.killall(running)
    assert (reads.count, told.count, len(wire.sent)) == (1, 0, 1)


def test_what_is_no_figures_is_garbage() -> None:
    wire = Wire()
    watching = Watch(lambda: False, Asked(), wire)  # type: ignore[arg-type]
    for message in (b"", b"\xc1", msgspec.msgpack.encode({"server_version": 1})):
        with pytest.raises(BadFrame):
            wire.handler(message)
    assert watching.figures is None


def test_a_statement_that_is_not_allowed_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    reads = Asked()
    reads.error = InsufficientPrivilege("permission denied")
    watching = Watch(lambda: True, reads, Wire())  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "tickhub"):
        logging.getLogger("tickhub").propagate = True
        watching.ask()
        watching.ask()
    assert [line.getMessage() for line in caplog.records] == ["the database's figures were not read: permission denied"]


def test_of_an_empty_database_there_is_no_ratio_that_would_be_none() -> None:
    names = {family.name for family in database_families(FIGURES, 1.0)}
    assert "tickhub_database_cache_hit_ratio" not in names
    assert "tickhub_archive_saved_ratio" not in names
    assert "tickhub_database_size_bytes" in names


def test_jobs_that_this_server_does_not_run_any_more_are_told_apart() -> None:
    job = Job(state="failed", runs=1, failures=1, started_s=None, ended_s=None, succeeded_s=None)
    figures = msgspec.structs.replace(FIGURES, jobs={"backup": job, "maintain": job})
    told = {
        sample.labels["name"]: sample.value
        for family in database_families(figures, 1.0, {"maintain"})
        for sample in family.samples
        if sample.name == "tickhub_job_scheduled"
    }
    assert told == {"backup": 0, "maintain": 1}


def test_that_there_never_were_figures_is_told_by_their_age_which_grows() -> None:
    assert 0 <= Watch(lambda: False, Asked(), Wire()).age_s < 100  # type: ignore[arg-type]
    told = [*database_families(None, 400.0), *host_families(None, 500.0)]
    assert [(sample.name, sample.value) for family in told for sample in family.samples] == [
        ("tickhub_database_figures_age_seconds", 400.0),
        ("tickhub_host_figures_age_seconds", 500.0),
    ]


def test_of_a_disk_that_hangs_from_the_start_the_age_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(host_figures, "look", gone)
    figures = HostFigures(tmp_path, tmp_path, tmp_path)
    known, age_s = figures.look()
    assert known is None
    assert 0 <= age_s < 100
    figures.stop()


def test_each_backup_is_sound_damaged_or_unverified_and_only_one_of_them(tmp_path: Path) -> None:
    at = datetime(2026, 1, 13, 2, tzinfo=UTC)
    different: list[dict[str, Any]] = [
        {}, {"damage": "a file"}, {"archive_damage": "a week"}, {"verified_at": None},
        {"archive_damage": "a week", "verified_at": None}, {"damage": "a file", "archive_damage": "a week"},
    ]  # fmt: skip
    for hours, other in enumerate(different):
        note = a_note(at + timedelta(hours=hours), **other)
        (tmp_path / "base" / note.label).mkdir(parents=True)
        (tmp_path / "base" / f"{note.label}.json").write_bytes(msgspec.json.encode(note))
    (tmp_path / "base" / "broken.json").write_text("{")
    told = host_families(host_figures.look(tmp_path, tmp_path, tmp_path), 1.0)
    [counted] = [family for family in told if family.name == "tickhub_backups"]
    states = {sample.labels["state"]: sample.value for sample in counted.samples}
    assert states == {"sound": 1, "damaged": 5, "unverified": 1}


def test_wal_that_was_never_received_is_told_of_as_such(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    journals = datetime(2026, 1, 13, 2, tzinfo=UTC)
    (tmp_path / FILE).write_bytes(msgspec.json.encode(Following(journals_until=journals, trouble="it may not")))
    told = host_families(host_figures.look(tmp_path, tmp_path, tmp_path), 1.0)
    [followed] = [family for family in told if family.name == "tickhub_backup_followed_timestamp_seconds"]
    until = {sample.labels["what"]: sample.value for sample in followed.samples}
    assert until == {"wal": 0, "journals": journals.timestamp()}


def test_many_figures_make_way_for_others_while_they_are_written_and_are_all_there() -> None:
    family = GaugeMetricFamily("tickhub_feed_open_seconds", "Of each.", labels=["symbol"])
    for number in range(1000):
        family.add_metric([f"S{number}"], number)
    turns = []

    def other() -> None:
        while True:
            turns.append(1)
            others_turn()

    running = gevent.spawn(other)
    text = generate_latest(Families([family, GaugeMetricFamily("tickhub_workers", "Living workers.", value=2)]))
    running.kill()
    lines = text.decode().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 1001
    assert 'tickhub_feed_open_seconds{symbol="S999"} 999.0' in lines
    assert len(turns) >= 10


def test_senders_beyond_the_bound_are_one() -> None:
    registry = CollectorRegistry()
    meters = RequestMeters(registry)
    for number in range(3 * MOST_SENDERS):
        meters.sent(f"s{number}", 0)
    counts = {
        sample.labels["source"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "tickhub_source_lag_seconds_count"
    }
    assert len(counts) == MOST_SENDERS + 1
    assert counts["other"] == 2 * MOST_SENDERS
    assert counts["s0"] == 1


@pytest.mark.parametrize(
    ("named", "agent", "source"),
    [
        ("bridge-1", "python-requests/2.34", "bridge-1"),
        ("", "python-requests/2.34", "python-requests"),
        ("", "Mozilla/5.0 (X11; Linux)", "Mozilla"),
        ('a"b', "curl/8", "curl"),
        ("x" * 41, "", "other"),
        ("", "", "other"),
    ],
)
def test_a_sender_is_what_it_calls_itself_else_its_program(named: str, agent: str, source: str) -> None:
    assert source_of(named, agent) == source


def test_only_slow_reads_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    meters = ReadMeters(CollectorRegistry(), slow_query_s=0.5)
    logging.getLogger("tickhub").propagate = True
    with caplog.at_level(logging.WARNING, "tickhub"):
        meters.read("page", "ok", 0.4, "read_bars")
        meters.read("page", "timeout", 0.6, "read_ticks")
        ReadMeters(CollectorRegistry(), slow_query_s=0.0).read("page", "ok", 1e6, "never")
    assert [line.getMessage() for line in caplog.records] == ["[SLOW] a query took 0.600 s, timeout: read_ticks (page)"]


def in_a_request(fn: Callable[[], str], sent_id: str = "the-id", target: str = "/x\x1b?y") -> str:
    """Run fn in a greenlet of its own that answers a request."""

    def work() -> str:
        request_ids.begin(sent_id, "GET", target)
        return fn()

    found: str = gevent.spawn(work).get()
    return found


def test_lines_for_people_name_the_request_before_the_traceback() -> None:
    lines = TextLines("%(message)s")
    assert lines.format(record("hello")) == "hello"
    assert in_a_request(lambda: lines.format(record("hello\nmore"))) == "hello [request the-id]\nmore"


def test_lines_for_programs_are_one_json_object_each_whatever_is_in_them() -> None:
    lines = JsonLines()
    try:
        raise ValueError("two\nlines")
    except ValueError:
        text = in_a_request(lambda: lines.format(record('a "b"\n\u2028', exc_info=sys.exc_info())))
    assert "\n" not in text
    found = json.loads(text)
    assert (found["message"], found["level"], found["request_id"]) == ('a "b"\n\u2028', "warning", "the-id")
    assert found["request"] == "GET /x??y"
    plain = json.loads(lines.format(record("x")))
    assert not plain.keys() & {"request_id", "exception"}


def test_no_line_has_a_key_that_somebody_put_into_a_url() -> None:
    key = "th_k3x9q0az_" + "aB-_5" * 8 + "xyz"
    asked = f'"GET /stats?key={key}&key={key} HTTP/1.1"'
    for lines in (TextLines("%(message)s"), AccessLines("%(message)s")):
        assert lines.format(record(asked)) == '"GET /stats?key=th_k3x9q0az_...&key=th_k3x9q0az_... HTTP/1.1"'
    try:
        raise ValueError(key)
    except ValueError:
        access = {"access": {"target": f"/stats?key={key}", "user_agent": f'"{key}"'}}
        text = JsonLines().format(record(asked, exc_info=sys.exc_info(), **access))
    assert (key in text, text.count("th_k3x9q0az_...")) == (False, 5)
    assert json.loads(text)["target"] == "/stats?key=th_k3x9q0az_..."


def test_no_line_has_a_key_that_somebody_calls_a_request_by_or_puts_behind_much_else() -> None:
    key = "th_k3x9q0az_" + "aB-_5" * 8 + "xyz"
    lines = TextLines("%(message)s")
    assert in_a_request(lambda: lines.format(record("hello")), key) == "hello [request th_k3x9q0az_...]"
    target = f"/api/quotes?symbols={'X' * 450}&key={key}"
    text = in_a_request(lambda: JsonLines().format(record("hello")), key, target)
    assert (key[:20] in text, json.loads(text)["request_id"]) == (False, "th_k3x9q0az_...")
    assert json.loads(text)["request"] == f"GET {target.replace(key, 'th_k3x9q0az_...')}"


def test_no_line_has_a_key_of_the_settings_in_whatever_form_it_came() -> None:
    plain, longer, odd = "read-0123456789ab", "read-0123456789ab-and-more", "a+b/c=\"d\\e%f'g&h?i"
    keys = (plain, longer, odd)
    forms = (plain, longer, odd, quote(odd), quote(odd, safe="").lower(), json.dumps(odd)[1:-1], repr(odd)[1:-1])
    for form in forms:
        for lines in (TextLines("%(message)s", keys=keys), AccessLines("%(message)s", keys=keys)):
            assert lines.format(record(f"GET /x?key={form}&y")) == "GET /x?key=...&y"
        text = JsonLines(keys=keys).format(record(f"GET /x?key={form}&y", access={"target": form}))
        assert (json.loads(text)["message"], json.loads(text)["target"]) == ("GET /x?key=...&y", "...")
    text = JsonLines(keys=keys).format(record(f"\\\\\\{odd}\\"))
    assert json.loads(text)["message"].strip("\\") == "...", "it is JSON, whatever is around a key"
    lines = TextLines("%(message)s", keys=keys)
    assert in_a_request(lambda: lines.format(record("hello")), plain) == "hello [request ...]"
    assert lines.format(record("read-0123456789a")) == "read-0123456789a", "which is no key"


def test_disks_and_backups_are_looked_at_now_and_then_and_none_waits_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "archive").mkdir()
    figures = HostFigures(tmp_path, tmp_path / "backups", tmp_path / "archive")
    first, age_s = figures.look()
    assert first is not None
    assert first.disks["data"].size_bytes >= first.disks["data"].free_bytes > 0
    assert first.disks.keys() == {"data", "archive"}, "of backups there are none"
    assert age_s < 5
    assert figures.look()[0] is first, "not looked at again at once"
    monkeypatch.setattr(host_figures, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(host_figures, "WAIT_S", 0.05)
    release: list[bool] = []
    started: list[int] = []

    def hang(*_: object) -> None:
        started.append(1)
        while not release:
            get_original("time", "sleep")(0.01)
        raise OSError("gone")

    monkeypatch.setattr(host_figures, "look", hang)
    for _ in range(3):
        known, age_s = figures.look()
        assert known is first
    release.append(True)
    monkeypatch.setattr(host_figures, "WAIT_S", 5.0)
    assert figures.look()[0] is first, "a look that failed changes nothing"
    assert figures._lane is not None
    figures._lane.call(int)  # behind whatever waits there
    assert len(started) == 1, "one look at a time, however many ask"
    figures.stop()
