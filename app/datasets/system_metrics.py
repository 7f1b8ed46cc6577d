"""How the hosts are that tickhub runs on. Pure."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct

from app.datasets.declare import Amount, Count, Dataset, Maybe, Moment, Name

Percent = Annotated[float, Meta(ge=0, le=100)]


class SystemMetrics(Struct, kw_only=True):
    """A host at one moment."""

    host: Annotated[Name, Meta(description="the host (name)")]
    timestamp: Moment
    cpu_percent: Annotated[Maybe[Percent], Meta(description="processors that are busy (%)")] = UNSET
    memory_percent: Annotated[Maybe[Percent], Meta(description="memory in use (%)")] = UNSET
    disk_usage_percent: Annotated[Maybe[Percent], Meta(description="disk of the data directory in use (%)")] = UNSET
    uptime_seconds: Annotated[Maybe[Amount], Meta(description="since the server's start (s)")] = UNSET
    health_status: Annotated[Maybe[Name], Meta(description="healthy, unhealthy or what a sender says (word)")] = UNSET
    active_alerts: Annotated[Maybe[Count], Meta(description="alerts that hold now (count)")] = UNSET


DATASET = Dataset(
    name="system_metrics",
    record=SystemMetrics,
    key=("host", "timestamp"),
    policy="update",
    retention="metrics",
    aggregates={
        "cpu_percent": "avg",
        "memory_percent": "avg",
        "disk_usage_percent": "avg",
        "uptime_seconds": "last",
        "active_alerts": "max",
    },
    partitions="month",
    rollup=True,
    help="Hosts at moments",
)
