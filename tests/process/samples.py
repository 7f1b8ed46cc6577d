"""What a server's /metrics says, by name and labels."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.process.harness import Server
from tests.process.wire import ask

Labels = frozenset[tuple[str, str]]


def metrics(server: Server) -> dict[str, dict[Labels, float]]:
    """Return all samples by name and labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(ask(server, "GET", "/metrics").data.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(found: Mapping[str, Mapping[Labels, float]], name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels, 0 without one."""
    wanted = set(labels.items())
    return sum(value for having, value in found.get(name, {}).items() if wanted <= having)
