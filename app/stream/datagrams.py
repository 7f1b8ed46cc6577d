"""Frames between the workers of a host: Unix datagrams, in a directory of the data directory. Greenlet side.

Each worker's life has a socket there; who is in the directory is a peer. It works whatever the database does.
Sending never waits: what a peer does not take at once is held back for it, up to a bound, then dropped and counted.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import gevent
from gevent.event import Event

from app.stream.frames import HEAD_BYTES, Sender, pieces_of

Result = Literal["sent", "received", "dropped", "garbage", "foreign"]

MOST_DATAGRAM_BYTES = 64 << 10
"""A third of the send buffer that a plain Linux allows (net.core.wmem_default), which counts more than the bytes."""

MOST_PIECES = 500
"""Of a datagram; the kernel takes 1024 buffers at once."""

SEND_BUFFER_BYTES = 1 << 20
"""Asked for; a plain Linux gives less. On macOS it bounds a datagram too."""

HELD_BYTES = 4 << 20
"""Held back for a peer that takes nothing. Linux lets ten datagrams wait for a reader, whatever their size: a worker
that is busy for a few milliseconds is behind by more."""

LOOK_EVERY_S = 1.0

TURN_S = 0.002
"""How long received frames are handled before the others of the loop get their turn."""

SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
_NAME = re.compile(r"([0-9]{1,5})-([0-9a-f]{16})\.sock")
_NOT_NOW = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})

log = logging.getLogger("tickhub")


class _Peer:
    """Another worker, and what it has not taken yet."""

    def __init__(self, found: socket.socket) -> None:
        self.socket = found
        self.held: deque[bytes] = deque()
        self.held_bytes = 0
        self.full = False
        """It takes nothing just now; `writable` tells when it does."""
        self.writable: Any = gevent.get_hub().loop.io(found.fileno(), 2)

    def close(self) -> None:
        self.writable.stop()
        self.writable.close()
        self.socket.close()
        self.held.clear()
        self.held_bytes = 0


class Datagrams:
    """The sockets of the workers of one data directory.

    received: called with every frame, on a greenlet of its own; may switch. count: what became of how many
    messages; `sent` counts each peer.
    """

    def __init__(
        self,
        directory: Path,
        sender: Sender,
        received: Callable[[bytes], None],
        count: Callable[[Result, int], None],
    ) -> None:
        self._directory = directory
        self._sender = sender
        self._head = sender.head()
        self._received = received
        self._count = count
        self._socket: socket.socket | None = None
        self._peers: dict[str, _Peer] = {}
        self._wake = Event()
        self._receiver: gevent.Greenlet | None = None
        self._greenlets: list[gevent.Greenlet] = []

    @property
    def reaches_somebody(self) -> bool:
        """Tell whether there is any other worker."""
        return bool(self._peers)

    def start(self) -> None:
        """Be there for the others, and look for them, now and every second."""
        self._try_to_look(said=False)
        self._greenlets = [gevent.spawn(self._send_held), gevent.spawn(self._keep_looking)]

    def stop(self) -> None:
        """Leave; idempotent."""
        gevent.killall(self._greenlets)
        self._greenlets = []
        for name in list(self._peers):
            self._leave(name)
        self._close()

    def send(self, kind: int, payload: bytes, to: Sender | None = None) -> None:
        """Send a message to all other workers, or to one of them; returns at once."""
        pieces = None
        for peer in self._peers.values() if to is None else self._known(to):
            if pieces is None:
                pieces = pieces_of(kind, payload, MOST_DATAGRAM_BYTES - HEAD_BYTES)
                size = sum(map(len, pieces))
            if peer.held_bytes + size > HELD_BYTES:
                self._count("dropped", 1)
                continue
            peer.held.extend(pieces)
            peer.held_bytes += size
            self._count("sent", 1)
        if pieces is not None:
            self._wake.set()  # what is sent in one turn of the loop leaves together

    def met(self, sender: Sender) -> None:
        """Take note of who sent a frame: one that has just begun need not wait for the next look."""
        name = name_of(sender)
        if sender.life != self._sender.life and name not in self._peers:
            with suppress(OSError):  # the next look tries again, and says why not
                self._join(name)

    def _known(self, sender: Sender) -> Sequence[_Peer]:
        peer = self._peers.get(name_of(sender))
        return () if peer is None else (peer,)

    def _open(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(self._directory.stat().st_mode) != 0o700:
            self._directory.chmod(0o700)
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            own.setblocking(False)
            with suppress(OSError):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SEND_BUFFER_BYTES)  # macOS waits there
            name = name_of(self._sender)
            fresh = self._directory / f".{name}"
            fresh.unlink(missing_ok=True)
            with _short(self._directory) as directory:
                own.bind(str(directory / fresh.name))
            fresh.chmod(0o600)
            # Others see it only now: a socket that is there and does not answer is taken for a dead worker's.
            fresh.rename(self._directory / name)
        except BaseException:
            own.close()
            raise
        self._socket = own
        self._receiver = gevent.spawn(self._receive, own)

    def _close(self) -> None:
        receiver, own = self._receiver, self._socket
        self._receiver = self._socket = None
        if receiver is not None:
            receiver.kill()
        if own is not None:
            own.close()
            with suppress(OSError):
                (self._directory / name_of(self._sender)).unlink(missing_ok=True)

    def _keep_looking(self) -> None:
        failed = False
        while True:
            gevent.sleep(LOOK_EVERY_S)
            failed = not self._try_to_look(said=failed)

    def _try_to_look(self, *, said: bool) -> bool:
        try:
            self._look()
        except OSError as error:
            if not said:
                log.warning("the other workers cannot be reached: %s; quotes of theirs come from the database", error)
            return False
        return True

    def _look(self) -> None:
        """Join who is new in the directory, leave who is gone; come back if somebody removed our own socket."""
        own = name_of(self._sender)
        if self._socket is None or not (self._directory / own).exists():
            self._close()
            self._open()
        names = {name for name in os.listdir(self._directory) if _NAME.fullmatch(name)}
        for name in self._peers.keys() - names:
            self._leave(name)
        failed: OSError | None = None
        for name in names - self._peers.keys() - {own}:
            try:
                self._join(name)
            except OSError as error:  # one that cannot be reached keeps nobody from the others
                failed = error
        if failed is not None:
            raise failed

    def _join(self, name: str) -> None:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            found.setblocking(False)
            with suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            with _short(self._directory) as directory:
                found.connect(str(directory / name))
            found.send(self._head)  # so that it knows us, too
        except ConnectionRefusedError:
            found.close()
            (self._directory / name).unlink(missing_ok=True)  # of a worker that was killed
        except FileNotFoundError:
            found.close()
        except OSError as error:
            if error.errno not in _NOT_NOW:
                found.close()
                raise
            self._peers[name] = _Peer(found)
        else:
            self._peers[name] = _Peer(found)

    def _leave(self, name: str) -> None:
        peer = self._peers.pop(name, None)
        if peer is not None:
            peer.close()

    def _receive(self, own: socket.socket) -> None:
        readable = gevent.get_hub().loop.io(own.fileno(), 1)
        until = 0.0
        try:
            while True:
                # Not sleep(0): that gives way to those who are about to run, not to those for whom something came in.
                if time.monotonic() > until:
                    gevent.get_hub().wait(readable)
                    until = time.monotonic() + TURN_S
                try:
                    frame = own.recv(MOST_DATAGRAM_BYTES + 1)
                except BlockingIOError:
                    until = 0.0
                except OSError as error:
                    log.debug("a frame was not received: %s", error)
                    gevent.sleep(LOOK_EVERY_S)
                else:
                    self._received(frame)
        finally:
            readable.stop()
            readable.close()

    def _send_held(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            for name, peer in list(self._peers.items()):
                try:
                    self._send_to(peer)
                except OSError as error:
                    log.debug("worker %s is gone: %s", name, error)
                    if self._peers.get(name) is peer:
                        self._leave(name)

    def _send_to(self, peer: _Peer) -> None:
        while peer.held and not peer.full:
            pieces, size = [self._head], HEAD_BYTES
            for piece in peer.held:
                if size + len(piece) > MOST_DATAGRAM_BYTES or len(pieces) > MOST_PIECES:
                    break
                pieces.append(piece)
                size += len(piece)
            try:
                peer.socket.sendmsg(pieces)
            except OSError as error:
                if error.errno not in _NOT_NOW:
                    raise
                peer.full = True
                peer.writable.start(self._now_writable, peer)
                return
            for _ in pieces[1:]:
                peer.held.popleft()
            peer.held_bytes -= size - HEAD_BYTES

    def _now_writable(self, peer: _Peer) -> None:
        peer.writable.stop()
        peer.full = False
        self._wake.set()


def name_of(sender: Sender) -> str:
    """Return the name of a worker's socket."""
    return f"{sender.slot}-{sender.life.hex()}.sock"


@contextmanager
def _short(directory: Path) -> Iterator[Path]:
    """Yield a path to a directory that is short enough for sockets in it, for the moment."""
    longest = "." + name_of(Sender(b"", bytes(8), 65535))
    if len(os.fsencode(directory / longest)) <= SOCKET_PATH_BYTES:
        yield directory
        return
    private = Path(tempfile.mkdtemp(prefix="tickhub-", dir="/tmp"))  # $TMPDIR may be long
    try:
        link = private / "bus"
        link.symlink_to(directory.resolve())
        yield link
    finally:
        shutil.rmtree(private, ignore_errors=True)
