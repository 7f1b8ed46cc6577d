"""How good the stored ticks of a symbol's days are: /api/coverage. Greenlet side.

Answers are streamed, a day a read on the lanes of exports.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date as Date
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from msgspec import Meta, Struct

from app.coverage_sources import DAYS, GAPS, HOURS, OUTLIERS, CoverageSource, What
from app.formats.table import Field
from app.quality.tally import Limits
from app.storage.coverage_reader import MOST_DAYS, USUAL_DAYS
from app.web.answers import list_type, row_type
from app.web.api import FORMATS, Endpoint, endpoint
from app.web.market import READ_ERRORS
from app.web.params import AnswerFormat, Limit, PageToken
from app.web.rows import answer_rows, rows_request
from app.web.server import runtime

blueprint = Blueprint("coverage", __name__)

_USUAL = Limits()


class CoverageParams(Struct, kw_only=True):
    """Parameters of /api/coverage."""

    start: Annotated[
        Date | None,
        Meta(description=f"first day, a date at the exchange; default {USUAL_DAYS} days before the end"),
    ] = None
    end: Annotated[
        Date | None,
        Meta(description=f"day before which they end; default tomorrow. At most {MOST_DAYS} days at a time"),
    ] = None
    gap_s: Annotated[
        float, Meta(ge=1, le=86_400, description="a stretch of a session without a tick is a gap when it is longer (s)")
    ] = _USUAL.gap_s
    late_s: Annotated[
        float, Meta(ge=0, le=1e9, description="a tick is late when it was accepted later than this after its time (s)")
    ] = _USUAL.late_s
    outlier_z: Annotated[
        float, Meta(ge=1, le=1e9, description="a change of price is an outlier when its score is beyond")
    ] = _USUAL.outlier_z
    limit: Limit = None
    order: Annotated[Literal["asc", "desc"] | None, Meta(description="by time; default asc")] = None
    page_token: PageToken = None
    format: AnswerFormat = None


def _answer(name: str, what: What, fields: tuple[Field, ...], nullable: tuple[str, ...] = ()) -> Any:
    return list_type(f"Coverage{name}s", [("symbol", str)], what, row_type(f"Coverage{name}", fields, nullable))


def _declared(what: What, path: str, summary: str, answer: Any, description: str = "") -> Callable[..., Response]:
    """Declare the endpoint of one kind of rows; return its view."""
    declared = Endpoint(
        "GET",
        f"/api/coverage/{{symbol}}{path}",
        summary,
        "market",
        description=description,
        params=CoverageParams,
        answer=answer,
        formats=FORMATS,
        errors=READ_ERRORS,
    )

    def view(symbol: str, params: CoverageParams) -> Response:
        return _rows(symbol, what, params)

    view.__name__ = what
    return endpoint(blueprint, declared)(view)


def _rows(symbol: str, what: What, params: CoverageParams) -> Response:
    limits = Limits(params.gap_s, params.late_s, params.outlier_z)
    source = CoverageSource(what, params.start, params.end, time.time_ns() // 1000, limits)
    return answer_rows(runtime(), rows_request(symbol, source, params), closed=False, by_parts=True)


days = _declared(
    "days",
    "",
    "How good the stored ticks are, day by day",
    _answer("Day", "days", DAYS, nullable=("outliers", "first", "last")),
    "Days are the exchange's: one begins at its midnight or, where the session opens on the eve, with that; every day"
    " of the range has a row, those without a session too. Hot and archived ticks count alike.",
)
hours = _declared(
    "hours",
    "/hours",
    "How good the stored ticks are, by the hours of the exchange's clocks",
    _answer("Hour", "hours", HOURS),
)
gaps = _declared("gaps", "/gaps", "Stretches of sessions without a tick", _answer("Gap", "gaps", GAPS))
outliers = _declared(
    "outliers",
    "/outliers",
    "Changes of price that are far from the day's others",
    _answer("Outlier", "outliers", OUTLIERS),
    "A price that is wrong once is two of them: there, and back.",
)
