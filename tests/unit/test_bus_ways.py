"""The bus between workers, in one process: who gets what, who is dropped, and what is left behind."""

from __future__ import annotations

import os
import socket
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import gevent
import pytest

from app.stream import datagrams
from app.stream.bus import Bus, host_of
from app.stream.datagrams import HELD_BYTES, MOST_DATAGRAM_BYTES, name_of
from app.stream.frames import MOST_MESSAGE_BYTES, VERSION, pieces_of
from tests.waiting import run_until

WAIT_S = 30.0


class Worker:
    """A bus, what came by it, and what it counted."""

    def __init__(self, directory: Path, slot: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.bus = Bus(directory, slot, self._count)
        self.came: list[bytes] = []
        self.bus.on(1, self.came.append)

    def _count(self, way: str, result: str, messages: int) -> None:
        self.counts[way, result] += messages

    def said(self, result: str) -> int:
        return self.counts["datagrams", result]

    def peers(self) -> set[str]:
        return set(self.bus._datagrams._peers)

    def path(self, directory: Path) -> Path:
        return directory / name_of(self.bus.me)

    def die(self) -> None:
        """End as kill -9 does: the socket is closed, its file stays."""
        ways = self.bus._datagrams
        gevent.killall(ways._greenlets)
        assert ways._receiver is not None
        ways._receiver.kill()
        assert ways._socket is not None
        ways._socket.close()


Make = Callable[[int], Worker]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "bus"


@pytest.fixture
def make(directory: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def begin(slot: int) -> Worker:
            worker = Worker(directory, slot)
            stack.callback(worker.bus.stop)
            worker.bus.start()
            return worker

        yield begin


def test_every_worker_but_the_sender_gets_every_message_in_order(make: Make) -> None:
    workers = [make(slot) for slot in range(4)]
    run_until(lambda: all(len(worker.peers()) == 3 for worker in workers))
    for number in range(300):
        workers[number % 4].bus.send(1, b"%d %d" % (number % 4, number))
    run_until(lambda: all(len(worker.came) == 225 for worker in workers))
    for at, worker in enumerate(workers):
        for sender in set(range(4)) - {at}:
            own = [message for message in worker.came if message.startswith(b"%d " % sender)]
            assert own == [b"%d %d" % (sender, number) for number in range(sender, 300, 4)]
    assert [worker.said("dropped") + worker.said("garbage") for worker in workers] == [0] * 4


def test_a_worker_that_begins_is_known_at_once_without_a_look(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "LOOK_EVERY_S", 3600.0)
    first = make(0)
    second = make(1)
    run_until(lambda: first.bus.reaches_somebody)
    first.bus.send(1, b"hello")
    run_until(lambda: second.came == [b"hello"])


def test_what_cannot_be_reached_keeps_nobody_from_the_others(
    make: Make, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(9):
        (directory / f"9-{number:016x}.sock").mkdir(parents=True)
    first, second = make(0), make(1)
    for worker, other in ((first, second), (second, first)):
        run_until(lambda worker=worker: len(worker.peers()) == 1)  # type: ignore[misc]
        worker.bus.send(1, b"hello")
        run_until(lambda other=other: other.came == [b"hello"])  # type: ignore[misc]
    assert len([line for line in caplog.messages if "cannot be reached" in line]) == 2


@pytest.mark.parametrize("size", [0, 1, MOST_DATAGRAM_BYTES, MOST_DATAGRAM_BYTES * 3 + 1, MOST_MESSAGE_BYTES - 65536])
def test_a_message_of_any_size_comes_whole(make: Make, size: int) -> None:
    first, second = make(0), make(1)
    run_until(lambda: first.bus.reaches_somebody)
    payload = os.urandom(size)
    first.bus.send(1, b"before")
    first.bus.send(1, payload)
    first.bus.send(1, b"after")
    run_until(lambda: len(second.came) == 3)
    assert second.came == [b"before", payload, b"after"]


def test_a_message_that_is_too_large_is_dropped_and_counted(make: Make) -> None:
    first, second = make(0), make(1)
    run_until(lambda: first.bus.reaches_somebody)
    first.bus.send(1, bytes(MOST_MESSAGE_BYTES + 1))
    first.bus.send(1, b"after")
    run_until(lambda: second.came == [b"after"])
    assert first.said("dropped") == 1


@pytest.mark.long
def test_a_peer_that_takes_nothing_keeps_nobody_waiting_and_costs_bounded_memory(make: Make, directory: Path) -> None:
    first, second = make(0), make(1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        path = directory / "9-00000000000000ff.sock"
        stuck.bind(str(path))
        run_until(lambda: len(first.peers()) == 2)
        for _ in range(3 * HELD_BYTES // 10_000):
            first.bus.send(1, bytes(10_000))
            gevent.sleep(0.0005)  # at a pace that the other one keeps
        run_until(lambda: len(second.came) == 3 * HELD_BYTES // 10_000)
        assert first.bus._datagrams._peers[path.name].held_bytes <= HELD_BYTES
        assert first.said("dropped") > 0
        assert first.said("sent") + first.said("dropped") == 2 * len(second.came)
        # Once it reads again, it gets what was held for it, and what comes then.
        took = 0
        stuck.setblocking(False)
        first.bus.send(1, b"later")

        def taken() -> bool:
            nonlocal took
            with suppress(BlockingIOError):
                took += len(stuck.recv(MOST_DATAGRAM_BYTES))
            return took > HELD_BYTES // 2 and not first.bus._datagrams._peers[path.name].held

        run_until(taken)


def test_a_worker_that_was_killed_is_forgotten_and_its_socket_removed(make: Make, directory: Path) -> None:
    first, second = make(0), make(1)
    run_until(lambda: first.peers() and second.peers())
    second.die()
    for _ in range(100):
        first.bus.send(1, b"to nobody")
    run_until(lambda: not first.peers())
    third = make(1)  # it looks around, and finds the dead one's
    assert not second.path(directory).exists()
    run_until(lambda: first.peers() == {name_of(third.bus.me)})
    first.bus.send(1, b"again")
    run_until(lambda: third.came == [b"again"])


def test_a_worker_whose_socket_was_removed_comes_back(
    make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "LOOK_EVERY_S", 0.05)
    first, second = make(0), make(1)
    run_until(lambda: first.peers())
    for path in directory.glob("*.sock"):
        path.unlink()
    run_until(lambda: first.path(directory).exists() and second.path(directory).exists())
    run_until(lambda: first.peers() and second.peers())

    def comes() -> bool:
        first.bus.send(1, b"again")
        gevent.sleep(0.01)  # or thousands were under way
        return bool(second.came)

    run_until(comes)


def test_sockets_are_for_their_owner_alone_and_gone_at_the_end(make: Make, directory: Path) -> None:
    mask = os.umask(0)
    try:
        directory.mkdir(mode=0o777)
        worker = make(0)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(worker.path(directory).stat().st_mode) == 0o600
    worker.bus.stop()
    worker.bus.stop()
    assert [path.name for path in directory.iterdir()] == ["host"]


def test_a_path_too_long_for_a_socket_is_no_hindrance(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120) / "bus"
    first, second = Worker(directory, 0), Worker(directory, 1)
    try:
        first.bus.start()
        second.bus.start()
        run_until(lambda: first.bus.reaches_somebody)
        first.bus.send(1, b"far")
        run_until(lambda: second.came == [b"far"])
        assert len(list(directory.glob("*.sock"))) == 2
        links = [path for path in Path("/tmp").glob("tickhub-*/*") if path.is_symlink()]
        assert not [path for path in links if path.readlink() == directory.resolve()], "links were left behind"
    finally:
        first.bus.stop()
        second.bus.stop()


def test_a_directory_that_cannot_be_made_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "LOOK_EVERY_S", 0.05)
    hindrance = tmp_path / "run"
    hindrance.write_text("a file")
    first, second = Worker(hindrance / "bus", 0), Worker(hindrance / "bus", 1)
    try:
        first.bus.start()
        second.bus.start()
        first.bus.send(1, b"lost")
        hindrance.unlink()
        run_until(lambda: first.bus.reaches_somebody)
        first.bus.send(1, b"found")
        run_until(lambda: second.came == [b"found"])
    finally:
        first.bus.stop()
        second.bus.stop()


def test_garbage_and_other_versions_are_counted_and_do_no_harm(make: Make, directory: Path) -> None:
    first, second = make(0), make(1)
    run_until(lambda: first.bus.reaches_somebody)
    head = bytearray(first.bus.me.head())
    head[2] = VERSION + 1
    piece = pieces_of(1, b"from the future", 100)[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect(str(second.path(directory)))
        for data in (b"", b"x", os.urandom(1000), first.bus.me.head() + b"\xff" * 20, bytes(MOST_DATAGRAM_BYTES * 2)):
            stranger.send(data)
        run_until(lambda: second.said("garbage") == 5)
        stranger.send(bytes(head) + piece)
        run_until(lambda: second.said("foreign") == 1)
    first.bus.send(1, b"sound")
    run_until(lambda: second.came == [b"sound"])


def test_a_handler_that_fails_stops_nobody(make: Make) -> None:
    first, second = make(0), make(1)
    run_until(lambda: first.bus.reaches_somebody)
    second.bus.on(7, lambda payload: 1 / 0)  # type: ignore[arg-type, return-value]
    first.bus.send(7, b"")
    first.bus.send(99, b"nobody listens")
    first.bus.send(1, b"next")
    run_until(lambda: second.came == [b"next"])


def test_a_handler_that_switches_keeps_the_order(make: Make) -> None:
    first, second = make(0), make(1)
    run_until(lambda: first.bus.reaches_somebody)
    came: list[bytes] = []

    def slow(payload: bytes) -> None:
        gevent.sleep(0.001)  # it switches: that is what is tested
        came.append(payload)

    second.bus.on(1, slow)
    sent = [b"%d" % number for number in range(100)]
    for payload in sent:
        first.bus.send(1, payload)
    run_until(lambda: len(came) == 100)
    assert came == sent


def test_a_message_for_one_worker_reaches_no_other(make: Make) -> None:
    workers = [make(slot) for slot in range(3)]
    run_until(lambda: all(len(worker.peers()) == 2 for worker in workers))
    workers[0].bus.send(1, b"for you", workers[1].bus.me)
    workers[0].bus.send(1, b"for all")
    run_until(lambda: workers[2].came and len(workers[1].came) == 2)
    assert (workers[1].came, workers[2].came) == ([b"for you", b"for all"], [b"for all"])


def test_all_workers_of_a_directory_have_one_host_id_and_no_other_directory_has_it(tmp_path: Path) -> None:
    ids = {host_of(tmp_path / "a") for _ in range(5)} | {host_of(tmp_path / "b")}
    assert len(ids) == 2
    assert {len(one) for one in ids} == {8}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["host"]
