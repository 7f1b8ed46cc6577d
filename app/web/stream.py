"""`/ws` and `/ws/metrics`: keys, Origin, and how many there may be. Greenlet side."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from flask import Blueprint, Response, current_app, g, request
from flask.blueprints import BlueprintSetupState
from flask_sock import Sock
from simple_websocket import Server
from wsproto.utilities import RemoteProtocolError

from app.errors import BadParameter, NotReady
from app.stream.socket import Socket
from app.web.auth import has_key, refuse_foreign_pages, sent_key
from app.web.current_metrics import current_figures
from app.web.errors import error_answer
from app.web.live_session import MetricsSession, Session
from app.web.metrics_feed import MetricsFeed
from app.web.server import runtime

blueprint = Blueprint("stream", __name__)
_sock = Sock()

_FEED = "tickhub.metrics_feed"


class _NoThread:
    """Stands for the thread in which simple-websocket would read: the request's own greenlet does."""

    name = ""

    def __init__(self, target: Any = None) -> None:
        """Take what would be run."""

    def start(self) -> None:
        """Do nothing."""


@blueprint.record_once
def _leave_the_frames_to_us(state: BlueprintSetupState) -> None:
    state.app.config["SOCK_SERVER_OPTIONS"] = {"thread_class": _NoThread}


@blueprint.before_request
def check() -> None:
    """Look at a handshake before it is answered.

    Raises Unauthorized, Forbidden, RateLimited, BadParameter, NotReady.
    """
    run = runtime()
    settings = run.settings
    if not run.keys.required:
        refuse_foreign_pages(settings, "open a WebSocket")
    elif has_key():
        g.caller = run.keys.admit(sent_key(), "read")
    _check_handshake()
    if run.hub.closing:
        raise NotReady("the server is going away")
    if len(run.hub) >= settings.ws_max_connections:
        raise NotReady(f"ws_max_connections={settings.ws_max_connections} WebSockets are open")
    if not settings.ws_deflate:
        request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


@blueprint.errorhandler(RemoteProtocolError)
def no_handshake(error: RemoteProtocolError) -> Response:
    """Answer what wsproto does not take for a handshake."""
    return error_answer(BadParameter.code, f"this is no WebSocket handshake: {error}", BadParameter.status)


@blueprint.errorhandler(ConnectionError)
def left(error: ConnectionError) -> Response:
    """Answer nothing to a client that left while its handshake was answered."""
    g.was_websocket = True
    return Response()


@_sock.route("/ws", bp=blueprint)  # type: ignore[untyped-decorator]  # flask-sock has no types
def live(server: Server) -> None:
    """Serve a client until one of us closes."""
    Session(runtime(), _open(server), allowed=_allowed(), caller=g.get("caller")).serve()


@_sock.route("/ws/metrics", bp=blueprint)  # type: ignore[untyped-decorator]  # the same
def live_metrics(server: Server) -> None:
    """Send a client the figures until one of us closes."""
    feed = current_app.extensions.get(_FEED)
    if feed is None:
        feed = current_app.extensions[_FEED] = MetricsFeed(current_figures().now)
    MetricsSession(runtime(), _open(server), feed, allowed=_allowed(), caller=g.get("caller")).serve()


class _NoAnswer(Response):
    """Ends a request whose connection was a WebSocket: nothing may follow on it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise StopIteration  # so gunicorn's workers are told


@blueprint.after_request
def no_answer(response: Response) -> Response:
    """Answer nothing where a WebSocket was; flask-sock's way is lost where an app has a response class of its own."""
    return _NoAnswer() if g.get("was_websocket") else response


def _open(server: Server) -> Socket:
    """Return the WebSocket of a handshake that is done; the server object is of no use from then on."""
    g.was_websocket = True
    server.connected = False  # or flask-sock would send a close of its own at the end
    deflates = "HTTP_SEC_WEBSOCKET_EXTENSIONS" in request.environ
    return Socket(server.sock, server.ws, _early_bytes(), deflates=deflates)


def _allowed() -> bool:
    """Tell whether a client whose handshake was taken need not show a key any more."""
    return "caller" in g or not runtime().keys.required


def _check_handshake() -> None:
    version, key = request.headers.get("Sec-WebSocket-Version"), request.headers.get("Sec-WebSocket-Key", "")
    if version != "13":
        raise BadParameter("Sec-WebSocket-Version must be 13")
    try:
        if len(b64decode(key, validate=True)) != 16:
            raise ValueError
    except ValueError:
        raise BadParameter("Sec-WebSocket-Key must be 16 bytes in base64") from None


def _early_bytes() -> bytes:
    """Return what a client sent behind its handshake without waiting for the answer, and gunicorn has read."""
    unreader = getattr(getattr(request.environ["wsgi.input"], "reader", None), "unreader", None)
    return bytes(unreader.take_buffered()) if unreader is not None else b""
