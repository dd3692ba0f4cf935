"""Frames of a web socket are read in pieces: a little of small ones at once, and large ones whole."""

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from restpipe.handlers.socket_messages import PIECE, Cuts

SIZES = st.lists(st.one_of(st.integers(0, 130), st.sampled_from([1000, 3000])), max_size=20)


def frame(size: int, *, masked: bool) -> bytes:
    return Frame(Opcode.BINARY, bytes(size)).serialize(mask=masked)


@given(SIZES, st.booleans(), st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_a_piece_has_many_small_frames_or_one_large_one_however_they_arrive(
    sizes: list[int], masked: bool, arriving: list[int]
) -> None:
    frames = [frame(size, masked=masked) for size in sizes]
    ends = {sum(map(len, frames[: number + 1])) for number in range(len(frames))}
    data, read, cuts = b"".join(frames), 0, Cuts()
    arrivals = 0
    while data:
        size = arriving[arrivals % len(arriving)]
        arrivals += 1
        for piece in cuts.all(data[:size]):
            assert piece
            # What it has beyond so many bytes is of one frame.
            assert not any(read + PIECE <= end < read + len(piece) for end in ends)
            read += len(piece)
        data = data[size:]
    assert read == max(ends, default=0)


def test_a_large_frame_is_one_piece_and_a_flood_of_small_ones_is_many() -> None:
    large, small = frame(100_000, masked=True), frame(1, masked=True)
    assert [len(piece) for piece in Cuts().all(large)] == [len(large)]
    cuts = Cuts()
    arrivals = (large[:5], large[5:50_000], large[50_000:] + small)  # the first ends within the length
    assert [[len(piece) for piece in cuts.all(arrived)] for arrived in arrivals] == [[5], [49_995], [50_014, 7]]
    assert [len(piece) for piece in Cuts().all(small * 1000)][:2] == [147 * len(small)] * 2
    pieces = [bytes(piece) for piece in Cuts().all(large + 1000 * small + large)]
    assert pieces[0] == large
    assert max(map(len, pieces[1:-1])) < PIECE + len(small)
    assert b"".join(pieces) == large + 1000 * small + large
