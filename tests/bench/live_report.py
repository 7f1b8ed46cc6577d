"""The figures of the live bench as tables and targets."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.bench.live_feed import Fed
from tests.bench.live_viewers import Seen
from tests.bench.tables import Target, table

DESK_P50_MS, DESK_P99_MS, QUICK_P99_MS, FIGURES_P99_MS, ACK_P99_MS = 60.0, 150.0, 25.0, 50.0, 25.0
MOST_CHANGE_PERCENT, MOST_GROWTH_MB = 20.0, 64.0


@dataclass(frozen=True, slots=True)
class Phase:
    """Ticks in, and some who watch. cpu_s: of the server's processes, each, in `seconds`; memory: all of them."""

    name: str
    conflate_ms: int
    seconds: float
    fed: Fed
    cpu_s: list[float]
    memory_mb: float
    seen: Seen | None = None

    @property
    def cores(self) -> float:
        """CPU of the server's processes, in cores."""
        return sum(self.cpu_s) / self.seconds


@dataclass(slots=True)
class Results:
    """The phases of one server each begin with one that nobody watches."""

    tickhub: list[Phase] = field(default_factory=list)
    reference: list[Phase] = field(default_factory=list)

    def phase(self, name: str) -> Phase:
        """Return a phase of tickhub."""
        return next(phase for phase in self.tickhub if phase.name == name)

    def yardstick(self, name: str) -> Phase:
        """Return a phase of the reference."""
        return next(phase for phase in self.reference if phase.name == name)


DESK, QUICK, FEWER, STALLED, FIGURES = "desk", "at once", "readers", "and stalled ones", "/ws/metrics"


def fan_out_us(phase: Phase, alone: Phase) -> float:
    """Return the CPU that an update to a viewer costs, in microseconds, less what the ticks cost without viewers."""
    assert phase.seen is not None
    return (phase.cores - alone.cores) * 1e6 / (phase.seen.updates / phase.seconds)


def phases_table(results: Results) -> str:
    """Return what was delivered, when, and what that took."""
    head = ["", "run", "viewers", "stalled", "conflate", "frames/s", "updates/s", "MB/s", "p50 ms", "p99 ms", "max ms"]
    head += ["ack p50", "p99 ms", "lost", "viewers' CPU"]
    rows = []
    for server, phases in (("tickhub", results.tickhub), ("websockets", results.reference)):
        for phase in phases:
            seen, ack = phase.seen, [f"{phase.fed.ack_ms(50):.1f}", f"{phase.fed.ack_ms(99):.1f}"]
            if seen is None:
                rows.append([server, "nobody", "0", "0", *["-"] * 7, *ack, "-", "-"])
                continue
            rows.append(
                [
                    server,
                    phase.name,
                    f"{seen.viewers:,}",
                    str(seen.stalled),
                    str(phase.conflate_ms),
                    f"{seen.frames / phase.seconds:,.0f}",
                    f"{seen.updates / phase.seconds:,.0f}",
                    f"{seen.bytes / phase.seconds / 1e6:.1f}",
                    *(f"{seen.latency(percent):.1f}" for percent in (50, 99, 100)),
                    *ack,
                    str(sum(seen.lost.values())),
                    f"{seen.cpu_share:.0%}",
                ]
            )
    return table(head, rows)


def cpu_table(results: Results) -> str:
    """Return what the servers' processes used, in all and for each update and frame that arrived."""
    head = ["", "run", "viewers", "conflate", "CPU, cores", "busiest", "memory MB"]
    head += ["us an update", "fan-out alone", "a frame"]
    rows = []
    for server, phases in (("tickhub", results.tickhub), ("websockets", results.reference)):
        for phase in phases:
            seen = phase.seen
            busiest = max(phase.cpu_s) / max(sum(phase.cpu_s), 1e-9)
            each = ["-"] * 3
            if seen is not None:
                fan_out = fan_out_us(phase, phases[0])
                each = [f"{sum(phase.cpu_s) * 1e6 / seen.updates:.3f}", f"{fan_out:.3f}"]
                each.append(f"{fan_out * seen.updates / seen.frames:.1f}")
            rows.append(
                [
                    server,
                    phase.name or "nobody",
                    f"{seen.viewers:,}" + (f" + {seen.stalled}" if seen.stalled else "") if seen else "0",
                    str(phase.conflate_ms) if seen else "-",
                    f"{phase.cores:.3f}",
                    f"{busiest:.0%}",
                    f"{phase.memory_mb:.0f}",
                    *each,
                ]
            )
    return table(head, rows)


def change_percent(results: Results) -> float:
    """Return by how much the readers' p99 is longer while others are stalled."""
    without, with_them = results.phase(FEWER).seen, results.phase(STALLED).seen
    assert without is not None
    assert with_them is not None
    return (with_them.latency(99) / without.latency(99) - 1) * 100


def results_tables(results: Results) -> list[str]:
    """Return the results as tables."""
    return [phases_table(results), cpu_table(results)]


def targets(results: Results) -> list[Target]:
    """Return what the figures have to be."""
    desk, quick = results.phase(DESK), results.phase(QUICK)
    assert desk.seen is not None
    assert quick.seen is not None
    lost = sum(sum(phase.seen.lost.values()) for phase in results.tickhub if phase.seen)
    figures = results.phase(FIGURES).seen
    assert figures is not None
    ack_ms = max(phase.fed.ack_ms(99) for phase in (desk, quick))
    ours = fan_out_us(desk, results.tickhub[0])
    theirs = fan_out_us(results.yardstick(DESK), results.reference[0])
    growth_mb = results.phase(STALLED).memory_mb - results.phase(FEWER).memory_mb
    return [
        Target("tick to 1,000 viewers, p50", desk.seen.latency(50), DESK_P50_MS, True, " ms"),
        Target("tick to 1,000 viewers, p99", desk.seen.latency(99), DESK_P99_MS, True, " ms"),
        Target("conflate_ms 0, 100 viewers, p99", quick.seen.latency(99), QUICK_P99_MS, True, " ms"),
        Target("viewers disconnected", lost, 1, True),
        Target("/ws/metrics, 100 clients, p99", figures.latency(99), FIGURES_P99_MS, True, " ms"),
        Target("ingest ack p99 meanwhile", ack_ms, ACK_P99_MS, True, " ms"),
        Target("fan-out CPU an update / websockets'", ours / theirs, 1.0, True),
        Target("readers' p99 beside 200 stalled", change_percent(results), MOST_CHANGE_PERCENT, True, " %"),
        Target("memory that 200 stalled take", growth_mb, MOST_GROWTH_MB, True, " MB"),
    ]
