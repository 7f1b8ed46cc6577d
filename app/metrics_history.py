"""Metrics of several groups as a JSON answer: read, encoded. Lane side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec
from psycopg2.extensions import cursor as Cursor

from app.datasets.declare import Aggregate, Dataset
from app.datasets.registry import DATASETS
from app.errors import BadParameter, UnknownSymbol
from app.formats.json_rows import Json
from app.market.rfc3339 import rfc3339
from app.storage.instruments import find
from app.storage.metrics_pieces import Chosen
from app.storage.metrics_reader import MetricsQuery, read_metrics
from app.storage.metrics_summary import Summary, read_summary

Group = Literal["market_data", "strategy", "execution", "system"]
GROUPS: Mapping[Group, Dataset] = {
    "market_data": DATASETS["market_data"],
    "strategy": DATASETS["strategy_metrics"],
    "execution": DATASETS["execution_metrics"],
    "system": DATASETS["system_metrics"],
}
"""The datasets by what they are called here."""

MOST_ROWS = 50_000
"""Intervals of one answer, of all groups together: about 10 MB, made in half a second."""

Interval = Literal["1m", "5m", "15m", "1h", "1d"]
INTERVALS_S: Mapping[Interval, int] = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86_400}

assert set(GROUPS) == set(get_args(Group))
assert set(INTERVALS_S) == set(get_args(Interval))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Records of these groups in [start_us, end_us) UTC; symbol, strategy_name, host: of one, None: of all.

    Each is looked at in the group that has it.
    """

    groups: tuple[Group, ...]
    start_us: int
    end_us: int
    symbol: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


def metrics_answer(
    cur: Cursor, wanted: Wanted, interval: Interval, aggregates: Mapping[str, Aggregate], max_rows: int = MOST_ROWS
) -> bytes:
    """Return the JSON of the groups by intervals. aggregates: by field, instead of what its dataset declares.

    Raises UnknownSymbol, BadParameter.
    """
    head = {"interval": interval, "start": rfc3339(wanted.start_us), "end": rfc3339(wanted.end_us)}
    pieces = [msgspec.json.encode(head)[:-1]]
    left = max_rows
    for group, chosen in _chosen(cur, wanted).items():
        dataset = chosen.dataset
        made: dict[str, Aggregate] = {
            column.name: aggregates.get(column.name) or dataset.aggregates.get(column.name, "last")
            for column in dataset.values
        }
        table = read_metrics(cur, MetricsQuery(chosen, INTERVALS_S[interval], made), left)
        if table is None:
            raise BadParameter(
                f"interval: of {interval} there are more than {max_rows} here: ask for longer ones, a shorter range, "
                "fewer metric_types or one symbol"
            )
        left -= len(table)
        pieces += [f',"{group}":['.encode(), Json(table.fields, "rows", {}).rows(table), b"]"]
    return b"".join([*pieces, b"}"])


def summary_answer(cur: Cursor, wanted: Wanted) -> bytes:
    """Return the JSON of what the groups come to. Raises UnknownSymbol."""
    told = {group: _summary(read_summary(cur, chosen)) for group, chosen in _chosen(cur, wanted).items()}
    return msgspec.json.encode({"start": rfc3339(wanted.start_us), "end": rfc3339(wanted.end_us), **told})


def _chosen(cur: Cursor, wanted: Wanted) -> dict[Group, Chosen]:
    symbol_id = None
    if wanted.symbol is not None:
        known = find(cur, wanted.symbol)
        if known is None:
            raise UnknownSymbol(f"Unknown symbol: {wanted.symbol[:64]}")
        symbol_id = known.symbol_id
    found = {}
    for group in wanted.groups:
        dataset = GROUPS[group]
        texts = {name: text for name, text in wanted.texts.items() if name in dataset.key}
        found[group] = Chosen(
            dataset, wanted.start_us, wanted.end_us, None if dataset.symbol is None else symbol_id, texts
        )
    return found


def _summary(summary: Summary) -> dict[str, object]:
    return {
        "rows": summary.rows,
        "first": None if summary.first_us is None else rfc3339(summary.first_us),
        "last": None if summary.last_us is None else rfc3339(summary.last_us),
        "fields": summary.fields,
    }
