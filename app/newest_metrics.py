"""The newest metrics of each symbol, strategy and host, in memory while somebody asks for them. Greenlet side.

    accepted by this worker -> known at once
    asked for, and a second old -> one greenlet reads all of them in the database; nobody who asks waits for it

What other workers accepted comes with the next read after its flush. With the database away what is known stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gevent
import msgspec
from gevent.event import Event

from app.datasets.declare import Dataset
from app.datasets.records import Records
from app.datasets.rollup import rollup_keys
from app.errors import DatabaseAway, RequestError
from app.storage.newest_metrics import MOST_NAMES, Newest

REFRESH_S = 0.5
REFRESH_SHARE = 0.02
"""How old what is known may get before it is read again, and the share of time that reading may take."""

FLUSH_S = 60.0
"""For so long what this worker accepted counts, though the database does not have it: it is flushed within seconds, or
never, where the database set it aside."""

RACE_S = 2.0
"""For so long a record with the time of the stored one counts as an update of it that is not flushed yet."""

SLICE_RECORDS = 500
"""Records that are looked at in one go: about a millisecond, in which nobody else is served."""

Read = Callable[[], dict[str, dict[str, Newest]]]

log = logging.getLogger("tickhub")


class NewestMetrics:
    """The newest records by dataset and name. read: reads those of the database; it may wait and fail."""

    def __init__(self, datasets: Iterable[Dataset], read: Read) -> None:
        self._read = read
        self._known: dict[str, dict[str, Newest]] = {dataset.name: {} for dataset in datasets}
        self._own: dict[tuple[str, str], float] = {}
        self._due_s = float("-inf")
        self._done = Event()
        self._done.set()

    def of(self, dataset: Dataset) -> Mapping[str, Newest]:
        """Return what is known, by name, and have it read again if that is due; never waits."""
        self._look()
        return self._known[dataset.name]

    def wait(self, most_s: float) -> None:
        """Have what is due read, and wait until that is done, for at most so long."""
        self._look()
        self._done.wait(most_s)

    def accepted(self, dataset: Dataset, records: Records) -> None:
        """Take note of durable records; those of other datasets are none of ours. Others are served meanwhile."""
        if dataset.name not in self._known:
            return
        keys = [records.columns[column.name] for column in rollup_keys(dataset)]
        names = keys[0] if keys else [""] * len(records)
        fields = {column.name: records.columns[column.name] for column in dataset.values}
        for start in range(0, len(records), SLICE_RECORDS):
            if start:
                gevent.sleep(0)
            self._take(dataset.name, names, records.columns["timestamp"], fields, start)

    def _take(
        self,
        dataset: str,
        names: Sequence[str],
        times_us: Sequence[int],
        fields: Mapping[str, Sequence[Any]],
        start: int,
    ) -> None:
        """Take note of SLICE_RECORDS records from `start` on, without a switch to another greenlet."""
        known, now_s = self._known[dataset], time.monotonic()
        for at in range(start, min(start + SLICE_RECORDS, len(names))):
            name, time_us = names[at], times_us[at]
            before = known.get(name)
            if (before is None and len(known) >= MOST_NAMES) or (before is not None and before.time_us > time_us):
                continue
            sent = {field: values[at] for field, values in fields.items()}
            if before is None or before.time_us < time_us:
                before = Newest(time_us, dict.fromkeys(fields))
            kept = {field: before.values[field] if value is msgspec.UNSET else value for field, value in sent.items()}
            known[name] = Newest(time_us, kept)
            self._own[dataset, name] = now_s

    def _look(self) -> None:
        if time.monotonic() >= self._due_s and self._done.is_set():
            self._done.clear()
            gevent.spawn(self._refresh)

    def _refresh(self) -> None:
        began_s, wait_s = time.monotonic(), REFRESH_S
        try:
            found = self._read()
            now_s = time.monotonic()
            wait_s = max(wait_s, (now_s - began_s) / REFRESH_SHARE)
            for dataset, rows in found.items():
                self._loaded(dataset, rows, now_s)
        except (DatabaseAway, RequestError) as error:
            log.debug("newest metrics were not read: %s", error)
        except Exception:
            log.exception("reading the newest metrics failed")
        finally:
            self._due_s = time.monotonic() + wait_s
            self._done.set()

    def _loaded(self, dataset: str, rows: dict[str, Newest], now_s: float) -> None:
        """Replace what is known by what the database has, but for what it cannot have yet."""
        for name, mine in self._known[dataset].items():
            age_s = now_s - self._own.get((dataset, name), float("-inf"))
            stored = rows.get(name)
            counts_s = FLUSH_S if stored is None or mine.time_us > stored.time_us else 0.0
            if stored is not None and mine.time_us == stored.time_us:
                counts_s = RACE_S
            if age_s < counts_s:
                rows[name] = mine
            else:
                self._own.pop((dataset, name), None)
        self._known[dataset] = rows
