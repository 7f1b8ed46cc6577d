"""/ws over TLS and with compression, and readers that stop reading there."""

from __future__ import annotations

import http.client
import ssl
from contextlib import ExitStack, closing

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import wait_until
from tests.process.live import Client, client, send
from tests.process.wire import AWAY, batch, tick


@pytest.mark.long
def test_compression_is_off_unless_asked_for(make_server: MakeServer) -> None:
    server = make_server("--database-url", AWAY).start().wait_accepting()
    with client(server, compression="deflate") as reader:
        assert reader.ws.protocol.extensions == []
    with_deflate = make_server("--database-url", AWAY, environ={"TICKHUB_WS_DEFLATE": "true"})
    with_deflate.start().wait_accepting()
    with client(with_deflate, compression="deflate") as reader, client(with_deflate, compression=None) as plain:
        assert len(reader.ws.protocol.extensions) == 1
        for one in (reader, plain):
            one.subscribe("AAPL")
            send(with_deflate, "AAPL", bid=2.5)
            one.until(lambda said: said.get("bid") == 2.5)


@pytest.mark.long
def test_over_tls_a_reader_that_stops_reading_misses_nothing_but_what_is_skipped(
    make_server: MakeServer, certificate: tuple[str, str]
) -> None:
    key, cert = certificate
    flags = ("--database-url", AWAY, "--ssl-keyfile", key, "--ssl-certfile", cert)
    server = make_server(*flags).start()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:

        def opened() -> Client | None:
            try:
                return stack.enter_context(client(server, secure=True, ssl=context, max_queue=1))
            except OSError:
                return None

        slow, reader = (wait_until(opened, what="the server") for _ in range(2))
        slow.subscribe("*")
        reader.subscribe("TSLA")
        symbols = ["AAPL", "MSFT", "NVDA", "META", "TSLA"]
        poster = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=30, context=context)
        with closing(poster):
            for n in range(1500):
                poster.request("POST", "/tick/batch", batch(*[tick(symbol=one, bid=1000.0 + n) for one in symbols]))
                assert poster.getresponse().read() == b'{"status":"success","received":5}'
                if n % 100 == 99:
                    reader.until(lambda said, bid=1000.0 + n: said.get("bid") == bid)
        found = slow.until(lambda said: said.get("bid") == 2499.0 and said["symbol"] == "TSLA")
        own = [said for said in found if said.get("symbol") == "TSLA"]
        assert [said["n"] for said in own] == list(range(1, len(own) + 1))
        assert any("skipped" in said for said in own), "nothing was left out: it was never slow"
        assert len(own) + sum(said.get("skipped", 0) for said in own) == 1500
    assert server.stop() == 0
    assert "Traceback" not in server.log()
