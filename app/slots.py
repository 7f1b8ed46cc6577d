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
)
