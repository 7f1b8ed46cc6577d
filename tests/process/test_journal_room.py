"""A small journal is room for ever: what is committed makes place for what comes."""

from __future__ import annotations

import pytest

from tests.process.conftest import MakeServer
from tests.process.harness import wait_until
from tests.process.load import Ticks

MIB = 1 << 20


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_a_journal_no_larger_than_its_segments_goes_on_taking_ticks(
    make_server: MakeServer, workers: int
) -> None:
    server = make_server(
        workers=workers,
        environ={"TICKHUB_JOURNAL_MAX_BYTES": str(MIB), "TICKHUB_JOURNAL_SEGMENT_BYTES": str(MIB)},
    )
    server.start().wait_ready()
    ticks = Ticks(11, 0, with_seq=True)
    sent = 0
    for _ in range(100):  # three times the journal
        batch = ticks.batch(500)
        # Refused now and then, but never for longer than flushing and freeing take.
        wait_until(lambda batch=batch: server.post(batch)[0] == 200, what="room in the journal")
        sent += len(batch)
    stats = server.wait_drained()
    assert stats["stored"] == sent
    assert server.stop() == 0
