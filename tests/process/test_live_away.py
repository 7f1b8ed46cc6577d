"""Live readers while the database goes away, hangs, and comes back: they stay, and what is known comes."""

from __future__ import annotations

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import Database
from tests.process.live import client, send
from tests.process.proxy import Proxy


@pytest.mark.long
def test_readers_stay_while_the_database_goes_and_comes(
    make_server: MakeServer, database: Database, proxy: Proxy
) -> None:
    server = make_server("--database-url", proxy.url, "--quote-timeout-s", "1")
    server.database = database
    server.start().wait_accepting()
    with client(server) as reader:
        reader.subscribe("AAPL")
        send(server, "AAPL", bid=10.0)
        assert reader.next("quote")["change"] is None, "what it was before is in the database"
        proxy.open()
        server.wait_ready()
        known = reader.until(lambda said: said.get("change") is not None)[-1]
        assert (known["bid"], known["change"]) == (10.0, 0.0)
        bid = 10.0
        for trouble in (proxy.close, proxy.swallow):
            trouble()
            bid += 1
            send(server, "AAPL", bid=bid)
            reader.until(lambda said, bid=bid: said.get("bid") == bid)
            with client(server) as late:
                assert late.subscribe("AAPL", "MSFT")["rejected"] == []
                assert late.next("quote")["bid"] == bid
            proxy.open()
            server.wait_ready()
            bid += 1
            send(server, "AAPL", bid=bid)
            update = reader.until(lambda said, bid=bid: said.get("bid") == bid)[-1]
            assert update["change"] == bid - 10
    assert "Traceback" not in server.log()
