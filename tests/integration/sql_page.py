"""The queries of docs/sql.md: read from the page, run on a small market as psql shows them.

`python -m tests.integration.sql_page` writes the page's answers anew, after a query or the market was changed.
"""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2

from app.storage import embedded
from app.storage.embedded_place import installed_binaries
from app.storage.schema import migrate
from tests.batches import Feeder, Tick, new_sink, write_all

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sql.md"
HOW = "python -m tests.integration.sql_page"

_BLOCK = re.compile(r"```sql\n(?P<query>.*?)```\n(?:\n```text\n(?P<answer>.*?)```\n)?", re.DOTALL)
_SETUP = re.compile(r"```sql (?P<who>admin|owner)\n(?P<statements>.*?)```\n", re.DOTALL)
_TIME_FILTER = re.compile(r"\$__timeFilter\((\w+)\)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPEN = datetime(2026, 1, 13, 14, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Query:
    """A query of the page, and the answer that the page shows for it, if it shows one."""

    sql: str
    answer: str | None


def queries() -> list[Query]:
    return [Query(found["query"], found["answer"]) for found in _BLOCK.finditer(PAGE.read_text())]


def setup(who: str) -> str:
    """Return the statements that let people into a database of one's own: by its admin, by the tables' owner."""
    return "".join(found["statements"] for found in _SETUP.finditer(PAGE.read_text()) if found["who"] == who)


def answer(url: str, query: str) -> str:
    """Return what psql shows to the role that reads. Raises CalledProcessError when the query fails."""
    # As Grafana writes it: https://grafana.com/docs/grafana/latest/datasources/postgres/#macros
    query = _TIME_FILTER.sub(r"\1 BETWEEN '2026-01-13T14:30:00Z' AND '2026-01-13T15:29:59Z'", query)
    done = subprocess.run(
        [installed_binaries() / "psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"],
        input=query,
        env={"PGTZ": "UTC", "LC_ALL": "C.UTF-8", "PSQL_PAGER": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()) + "\n"


def fill(url: str) -> None:
    """Store a morning of two shares, a few minutes of the day before, and what goes wrong in life."""
    with closing(psycopg2.connect(url)) as conn, conn, conn.cursor() as cur:
        cur.execute("UPDATE instruments SET digits = 2, currency = 'USD' WHERE symbol IN ('TSLA', 'NVDA')")
    sink, feeder = new_sink(url), Feeder(_us(_OPEN))
    day_before = _session(_OPEN - timedelta(days=1), timedelta(minutes=10), seed=1)
    morning = _session(_OPEN, timedelta(minutes=90), seed=2)
    write_all(sink, feeder, day_before, morning)
    again = [tick for tick in morning if tick.symbol == "NVDA"][:100]  # a bridge that heard no answer
    first, second = morning[0], morning[1]
    other = [Tick(**{**vars(tick), "bid": tick.bid + 5, "ask": tick.ask + 5}) for tick in (first, second)]
    write_all(sink, feeder, again, other)
    sink.close()


def _us(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _session(start: datetime, length: timedelta, seed: int) -> list[Tick]:
    """Make quotes every two seconds and a trade after some of them; TSLA stops for a quarter of an hour."""
    pick = random.Random(seed).random  # the one method whose numbers are the same in every Python
    cents = {"TSLA": 43_210, "NVDA": 18_540}
    found = []
    for step in range(length // timedelta(seconds=2)):
        time = start + timedelta(seconds=2 * step)
        common = int(pick() * 7) - 3
        for symbol in cents:
            cents[symbol] += common + int(pick() * 5) - 2
            bid, ask = cents[symbol] / 100, (cents[symbol] + 1 + int(pick() * pick() * 6)) / 100
            size, buys, trades = float(1 + int(pick() * pick() * 300)), pick() < 0.5, pick() < 0.3
            if symbol == "TSLA" and timedelta(minutes=40) <= time - start < timedelta(minutes=55):
                continue
            moment = _us(time) + int(pick() * 900) * 1000
            found.append(Tick(symbol, moment, 0, bid, ask))
            if trades:
                price = ask if buys else bid
                found.append(Tick(symbol, moment + 40_000, 0, bid, ask, price, volume=size, flags=56 if buys else 88))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tickhub-pg-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        config = embedded.EmbeddedConfig(folder / "data", memory_mb=128)
        try:
            embedded.start(config, system_root=folder / "system")
            url = embedded.url(config)
            migrate(url)
            fill(url)
            text = PAGE.read_text()
            for query in queries():
                if query.answer is not None:
                    old = f"```sql\n{query.sql}```\n\n```text\n"
                    text = text.replace(f"{old}{query.answer}```", f"{old}{answer(url, query.sql)}```")
            PAGE.write_text(text)
        finally:
            embedded.stop(config)


if __name__ == "__main__":
    main()
