"""The numbers of a worker slot, and the states that a worker is in."""

from __future__ import annotations

STATES = ("starting", "running", "draining", "stopped")

SLOT_FIELDS = (
    "pid",
    "started_us",
    "state",  # index in STATES
    "requests",
    "rejected",  # refused rows
    "flush_failures",
    "connections",
    "requests_per_second_x1000",
    "ahead",  # accepted rows more than a minute ahead of the server's clock
    "most_ahead_us",
    "flush_lag_us",  # since the oldest row that is not flushed was received
    "journals",  # that the worker drains: its own, and those left by dead ones
    "buffer_bytes",
    "quote_lanes",  # for each kind of read: how many there may be, how many are busy, how many requests wait
    "quote_lanes_busy",
    "quote_lanes_waiting",
    "page_lanes",
    "page_lanes_busy",
    "page_lanes_waiting",
    "export_lanes",
    "export_lanes_busy",
    "export_lanes_waiting",
    "ws_open",
    "ws_sent",
    "ws_skipped",
    "ws_too_slow",
)
