"""What a client of `/ws` or `/ws/metrics` says, and what that does. Greenlet side."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import gevent

from app.errors import (
    BadParameter,
    ClientGone,
    Conflict,
    DatabaseAway,
    DatabaseNeeded,
    RequestError,
    Unauthorized,
    UnknownCommand,
)
from app.keys import Caller
from app.runtime import Runtime
from app.stream import messages
from app.stream.messages import RejectedSymbol
from app.stream.protocol import MAX_SYMBOLS, Action, Auth, Ping, Subscribe, Unsubscribe, read_action
from app.stream.replay import Replay
from app.stream.socket import POLICY, Socket
from app.stream.subscriber import Subscriber
from app.stream.trades import Since, parse_since
from app.web.metrics_feed import MetricsFeed
from app.web.quotes import newest, resolve

AUTH_WAIT_S = 10.0
"""How long a client without a key in its header may take to show one."""

REPLAY_QUEUED, REPLAY_QUEUED_BYTES = 500, 1 << 20
"""Stored trades are read on when less than that waits for the reader."""

REPLAY_LOOK_S = 0.02

log = logging.getLogger("tickhub")


class Session:
    """What one client says, and what that does."""

    heartbeats = True

    def __init__(self, run: Runtime, socket: Socket, *, allowed: bool, caller: Caller | None = None) -> None:
        """Begin. allowed: the client need not show a key any more; caller: whose key it has shown."""
        self._run, self._socket, self._allowed, self._caller = run, socket, allowed, caller
        self._let_go: Callable[[], None] | None = None
        self._reader = Subscriber(self._socket)
        self._socket.on_drained = partial(run.hub.drained, self._reader)
        self._asking: gevent.Greenlet | None = None
        self._replaying: gevent.Greenlet | None = None

    def serve(self) -> None:
        """Serve the client until the connection has ended."""
        hub, socket = self._run.hub, self._socket
        hub.attach(self._reader, heartbeats=self.heartbeats)
        try:
            if self._allowed:
                self._come_in()
            else:
                self._asking = gevent.spawn_later(AUTH_WAIT_S, self._refuse, "no API key was shown")
            for message in socket.messages():
                self._hear(message)
        finally:
            hub.detach(self._reader)
            self._end()
            socket.finish()

    def _come_in(self) -> None:
        why = "an API key is needed now" if self._caller is None else "the API key holds no more"
        self._let_go = self._run.keys.hold(self._caller, partial(self._refuse, why))
        self._begin()

    def _begin(self) -> None:
        """Do what is done for a client as soon as it may read."""

    def _end(self) -> None:
        """Undo it."""
        self._stop_asking()
        if self._let_go is not None:
            self._let_go()
        if self._replaying is not None:
            self._replaying.kill(block=False)  # what it waits for may take its time

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.kill()
            self._asking = None

    def _hear(self, message: str | bytes) -> None:
        try:
            self._do(read_action(message))
        except RequestError as error:
            self._reader.say(messages.error(error.code, str(error) or (type(error).__doc__ or "")))
        except ClientGone:
            self._socket.cut()
        except Exception:
            log.exception("a live request failed")
            self._reader.say(messages.error("internal", "the server failed on this; its log says why"))

    def _do(self, action: Action) -> None:
        if isinstance(action, Auth):
            self._show_key(action.key)
        elif isinstance(action, Ping):
            self._reader.say(messages.PONG)
        elif not self._allowed:
            raise Unauthorized('an API key is needed: send {"action":"auth","key":"..."} first')
        elif isinstance(action, Subscribe):
            self._subscribe(action)
        else:
            self._unsubscribe(action)

    def _show_key(self, key: str) -> None:
        try:
            if self._run.keys.required:
                caller = self._run.keys.admit(key.strip(), "read")
                self._caller = self._caller or caller
        except RequestError as error:
            self._reader.say(messages.error(error.code, str(error)))
            self._refuse(str(error))
            return
        self._reader.say(messages.AUTHENTICATED)
        if not self._allowed:
            self._allowed = True
            self._stop_asking()
            self._come_in()

    def _refuse(self, why: str) -> None:
        self._socket.close(POLICY, why)

    def _subscribe(self, action: Subscribe) -> None:
        run, reader = self._run, self._reader
        since = None if action.since is None else self._since(action)
        symbols, rejected = self._resolved(action.symbols)
        if symbols is not None:
            named = reader.named()
            room = MAX_SYMBOLS - len(named)
            new = [symbol for symbol in symbols if symbol not in named]
            rejected += [
                RejectedSymbol(symbol, "bad_parameter", f"a connection names at most {MAX_SYMBOLS} symbols: use *")
                for symbol in new[room:]
            ]
            symbols = [symbol for symbol in symbols if symbol not in set(new[room:])]
        if action.conflate_ms is not None:
            reader.conflate_s = action.conflate_ms / 1000
        if action.batch is not None:
            reader.batch = action.batch
        if "quotes" in action.channels:
            wanted = run.symbols.map.names if symbols is None else symbols
            if unread := [symbol for symbol in wanted if not run.quotes.was_read(symbol)]:
                newest(run, unread)
        if since is not None:
            reader.replay = Replay(None if symbols is None else frozenset(symbols), reader.replay)
        run.hub.subscribe(reader, symbols, action.channels, action.interval)
        self._acknowledge("subscribed", rejected)
        if "bars" in action.channels:
            run.live_bars.look()
            reader.push_all(run.live_bars.running(symbols, action.interval))
        if since is not None:
            assert reader.replay is not None
            self._replaying = gevent.spawn(self._replay, since, symbols, reader.replay)

    def _since(self, action: Subscribe) -> Since:
        """Return where trades are asked for from. Raises BadParameter, Conflict."""
        if "trades" not in action.channels:
            raise BadParameter('since is for trades: give "channels":["trades"]')
        if self._replaying is not None and not self._replaying.dead:
            raise Conflict("trades are being replayed: wait for replay_complete")
        return parse_since(str(action.since))

    def _replay(self, since: Since, symbols: list[str] | None, replay: Replay) -> None:
        """Send stored trades, as quickly as the reader takes them, and let the live ones follow."""
        reader, hub = self._reader, self._run.hub
        try:
            for updates in self._run.live_trades.replay(since, symbols, replay):
                reader.push_all(update for update in updates if update.symbol in reader.trades)
                hub.hurry(reader)
                gevent.sleep(0)
                while reader.queued > REPLAY_QUEUED or reader.queued_bytes > REPLAY_QUEUED_BYTES:
                    gevent.sleep(REPLAY_LOOK_S)
        except (RequestError, DatabaseAway) as error:
            code = error.code if isinstance(error, RequestError) else DatabaseNeeded.code
            self._give_up_replay(symbols, code, str(error))
            return
        except Exception:
            log.exception("a replay failed")
            self._give_up_replay(symbols, "internal", "the server failed on this; its log says why")
            return
        reader.push(messages.REPLAY_COMPLETE, alone=True)
        reader.push_all(replay.release())
        hub.hurry(reader)

    def _give_up_replay(self, symbols: list[str] | None, code: str, why: str) -> None:
        self._run.hub.unsubscribe(self._reader, symbols, ("trades",))
        self._reader.replay = None if self._reader.replay is None else self._reader.replay.before
        self._reader.say(messages.error(code, f"the trades could not be replayed, and are not watched: {why}"))

    def _unsubscribe(self, action: Unsubscribe) -> None:
        symbols, rejected = self._resolved(action.symbols)
        self._run.hub.unsubscribe(self._reader, symbols, action.channels, action.interval)
        if self._replaying is not None and not self._reader.trades:
            self._replaying.kill()
            self._reader.replay = None
        self._acknowledge("unsubscribed", rejected)

    def _resolved(self, names: tuple[str, ...] | None) -> tuple[list[str] | None, list[RejectedSymbol]]:
        if names is None:
            return None, []
        known, rejected = resolve(self._run, list(names))
        return known, [RejectedSymbol(one.symbol, one.code, one.message) for one in rejected]

    def _acknowledge(self, kind: str, rejected: list[RejectedSymbol]) -> None:
        reader = self._reader
        reader.say(messages.acknowledgement(kind, self._run.hub.symbols_of(reader), reader.channels, rejected))


class MetricsSession(Session):
    """A client that watches the figures."""

    heartbeats = False  # each frame is the figures

    def __init__(
        self, run: Runtime, socket: Socket, feed: MetricsFeed, *, allowed: bool, caller: Caller | None = None
    ) -> None:
        super().__init__(run, socket, allowed=allowed, caller=caller)
        self._feed = feed

    def _begin(self) -> None:
        self._feed.add(self._reader)

    def _end(self) -> None:
        super()._end()
        self._feed.remove(self._reader)

    def _subscribe(self, action: Subscribe) -> None:
        raise UnknownCommand("there is nothing to subscribe to here: the figures come by themselves")

    def _unsubscribe(self, action: Unsubscribe) -> None:
        raise UnknownCommand("there is nothing to subscribe to here: the figures come by themselves")
