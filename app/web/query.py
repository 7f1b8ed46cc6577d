"""Reads. The index of what there is; market reads join here."""

from __future__ import annotations

from flask import Blueprint, Response

from app.web.errors import answer

blueprint = Blueprint("query", __name__)

ENDPOINTS = (
    ("POST", "/tick", "one tick"),
    ("POST", "/tick/batch", "a batch of ticks"),
    ("GET", "/stats", "what came in and what became of it"),
    ("GET", "/health", "whether server and database are well; also /health/live, /health/ready"),
    ("GET", "/metrics", "the same for Prometheus"),
)


@blueprint.get("/")
def index() -> Response:
    """List the endpoints."""
    return answer({"endpoints": [{"method": m, "path": p, "what": w} for m, p, w in ENDPOINTS]})
