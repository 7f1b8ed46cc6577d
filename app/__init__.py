"""tickhub: a market-data server for a small trading team.

The composition root. Everything heavy is imported inside `create_app`, because gunicorn's master loads this package
before the workers patch the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    """Make the Flask application; pure: nothing is opened or started.

    The worker hangs its Runtime into `app.extensions["tickhub"]` before it serves.
    """
    from flask import Flask

    from app.web import (
        alerts,
        cors,
        coverage,
        current_metrics,
        datasets,
        db_command,
        docs,
        errors,
        financials,
        guards,
        health,
        history,
        ingest,
        market,
        metrics_history,
        options,
        query,
        quotes,
        requests_seen,
        stats,
        stock_info,
        stream,
        udf,
        viewer,
    )

    app = Flask("tickhub", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    # Else a symbol's // is answered with a redirect, in HTML, to a symbol with one.
    app.url_map.merge_slashes = False
    requests_seen.register(app)
    errors.register(app)
    cors.register(app)
    guards.register(app)
    market_rooms = (quotes, market, history, options, stock_info, financials, udf, coverage)
    others = (alerts, query, stats, current_metrics, metrics_history, health, stream, viewer, docs)
    for room in (ingest, datasets, db_command, *market_rooms, *others):
        app.register_blueprint(room.blueprint)
    return app
