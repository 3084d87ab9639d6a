"""Server-sent events survive every way of being written and cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.sse import EventTooLarge, SseDecoder


def decode(*pieces: bytes) -> list[str]:
    decoder = SseDecoder()
    return [data for piece in pieces for data in decoder.feed(piece)] + list(decoder.finish())


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b": comment\n\nid: 1\nevent: x\nretry: 5\ndata:a\ndata:  b\n\n", ["a\n b"]),
        ("data: ü\u2028\x85€\n\n".encode(), ["ü\u2028\x85€"]),
        (b"data: no end", ["no end"]),
        (b"data: no end\n", ["no end"]),
        (b"data\n\n", [""]),
        (b"database: x\nnonsense\n\n\n\n", []),
        (b"", []),
    ],
)
def test_streams(stream: bytes, events: list[str]) -> None:
    """FAULTS 79: comments, CRLF, a byte order mark, split characters, no blank line at the end."""
    assert decode(stream) == events
    assert decode(*(stream[at : at + 1] for at in range(len(stream)))) == events, "byte by byte"


lines = st.lists(
    st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]), max_size=20), min_size=1
)


@settings(deadline=None)
@given(st.lists(lines, max_size=4), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 400)))
def test_any_cutting_gives_the_same_events(events: list[list[str]], end: bytes, cuts: list[int]) -> None:
    stream = b"".join(b"".join(b"data: " + line.encode() + end for line in event) + end for event in events)
    at = [0, *sorted(cuts), len(stream)]
    assert decode(*(stream[a:b] for a, b in itertools.pairwise(at))) == ["\n".join(event) for event in events]


def test_ten_megabytes_survive_and_endless_ones_do_not() -> None:
    """FAULTS 79."""
    long = b"x" * 10_000_000
    pieces = [b"data: ", *(long[at : at + 65_536] for at in range(0, len(long), 65_536)), b"\n\n"]
    assert decode(*pieces) == [long.decode()]
    for line in (b"x" * 100, b"data: " + b"x" * 10 + b"\n"):
        decoder = SseDecoder(limit=500)
        with pytest.raises(EventTooLarge, match="500"):
            for _ in range(100):
                list(decoder.feed(line))


def test_bad_utf_8_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        decode(b"data: \xff\n\n")
