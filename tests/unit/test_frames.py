"""Messages as bytes: whatever is sent comes out again, and whatever else comes does no harm."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.stream import frames
from app.stream.frames import (
    HEAD_BYTES,
    PIECE_HEAD_BYTES,
    Assembler,
    BadFrame,
    ForeignFrame,
    Sender,
    pieces_of,
    sender_of,
)

ME, OTHER = Sender(b"hosthost", b"lifelife", 3), Sender(b"hosthost", b"12345678", 4)
MESSAGES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=8)


def framed(sender: Sender, messages: list[tuple[int, bytes]], piece_bytes: int, pieces_a_frame: int) -> list[bytes]:
    pieces = [piece for kind, payload in messages for piece in pieces_of(kind, payload, piece_bytes)]
    assert all(len(piece) <= piece_bytes for piece in pieces)
    starts = range(0, len(pieces), pieces_a_frame)
    return [sender.head() + b"".join(pieces[at : at + pieces_a_frame]) for at in starts]


@given(MESSAGES, MESSAGES, st.integers(PIECE_HEAD_BYTES + 1, 40), st.integers(1, 4), st.randoms(use_true_random=False))
def test_messages_of_two_senders_come_out_as_they_went_in(
    mine: list[tuple[int, bytes]],
    others: list[tuple[int, bytes]],
    piece_bytes: int,
    pieces_a_frame: int,
    random: Random,
) -> None:
    assembler = Assembler()
    ways = {sender: framed(sender, sent, piece_bytes, pieces_a_frame) for sender, sent in ((ME, mine), (OTHER, others))}
    came: dict[Sender, list[tuple[int, bytes]]] = {ME: [], OTHER: []}
    while left := [sender for sender, way in ways.items() if way]:
        frame = ways[random.choice(left)].pop(0)
        sender = sender_of(frame)
        came[sender] += assembler.messages(frame, sender)
    assert came == {ME: mine, OTHER: others}
    assert (assembler._bytes, assembler._unfinished) == (0, {})


@given(st.binary(max_size=100))
def test_garbage_is_refused_or_is_no_message(data: bytes) -> None:
    with pytest.raises(BadFrame):
        sender_of(data)
    with pytest.raises(BadFrame):
        list(Assembler().messages(ME.head() + b"\x01\xff\x00\x00" + data, ME))


@given(st.data())
def test_a_damaged_frame_raises_nothing_but_that_it_is_damaged(data: st.DataObject) -> None:
    pieces = b"".join(pieces_of(1, b"x" * 30, 20) + pieces_of(2, b"y", 20))
    frame = bytearray(ME.head() + pieces)
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadFrame, ForeignFrame):
        list(Assembler().messages(bytes(frame), sender_of(bytes(frame))))


@pytest.mark.parametrize("cut", range(1, HEAD_BYTES + 10))
def test_a_frame_that_was_cut_is_refused(cut: int) -> None:
    frame = ME.head() + pieces_of(1, b"a", 100)[0] + pieces_of(1, b"b", 100)[0]
    if cut in (PIECE_HEAD_BYTES + 1, 2 * PIECE_HEAD_BYTES + 2, len(frame)):
        cut += 1  # between two pieces nothing is missing
    with pytest.raises(BadFrame):
        list(Assembler().messages(frame[: len(frame) - cut], sender_of(frame[: len(frame) - cut])))


def test_a_frame_of_another_version_is_told_from_garbage() -> None:
    frame = bytearray(ME.head())
    frame[2] = frames.VERSION + 1
    with pytest.raises(ForeignFrame):
        sender_of(bytes(frame))


def test_what_is_whole_comes_out_whatever_is_lost_of_the_others() -> None:
    """A subscriber of Redis begins, or comes back, in the middle of a message."""
    assembler = Assembler()
    _, *rest = pieces_of(1, b"lost" * 10, 20)
    frame = ME.head() + b"".join(rest + pieces_of(1, b"next", 20))
    assert list(assembler.messages(frame, ME)) == [(1, b"next")]


@given(st.sets(st.integers(0, 11)), st.integers(1, 4))
def test_parts_of_two_messages_never_make_a_third_one(lost: set[int], pieces_a_frame: int) -> None:
    sent = [(1, bytes([65 + number]) * 30) for number in range(3)]
    pieces = [piece for kind, payload in sent for piece in pieces_of(kind, payload, PIECE_HEAD_BYTES + 8)]
    assert len(pieces) == 12
    left = [piece for at, piece in enumerate(pieces) if at not in lost]
    assembler = Assembler()
    came = []
    for at in range(0, len(left), pieces_a_frame):
        came += assembler.messages(ME.head() + b"".join(left[at : at + pieces_a_frame]), ME)
    assert came == [one for at, one in enumerate(sent) if not lost & set(range(4 * at, 4 * at + 4))]


def test_a_message_that_is_begun_anew_forgets_its_first_try() -> None:
    assembler = Assembler()
    pieces = pieces_of(1, b"0123456789" * 3, 20)
    assert list(assembler.messages(ME.head() + pieces[0], ME)) == []
    assert list(assembler.messages(ME.head() + b"".join(pieces), ME)) == [(1, b"0123456789" * 3)]


def test_unfinished_messages_take_no_more_than_their_bound() -> None:
    assembler = Assembler(most_bytes=1000)
    for number in range(100):
        sender = Sender(b"hosthost", b"%08d" % number, 0)
        list(assembler.messages(sender.head() + pieces_of(1, bytes(500), 208)[0], sender))
    assert assembler._bytes <= 1000
    assert len(assembler._unfinished) <= 5
