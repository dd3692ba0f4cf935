"""Bodies that are streamed: what each has to be, byte for byte. It is copied beside the handlers."""

import hashlib
from collections.abc import Iterator

PIECE = 64 * 1024


def pieces_of(nonce: str, size: int) -> Iterator[bytes]:
    """Yield a body that no other nonce has, and no other part of itself."""
    for at in range(0, size, PIECE):
        yield hashlib.shake_128(f"{nonce} {at}".encode()).digest(min(PIECE, size - at))


class Sum:
    """The checksum of a body as it passes by.

    Attributes:
        size: bytes so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self._sum = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        self._sum.update(piece)

    @property
    def text(self) -> str:
        return self._sum.hexdigest()


def sum_of(nonce: str, size: int) -> str:
    """Return the checksum that a body has to have."""
    made = Sum()
    for piece in pieces_of(nonce, size):
        made.add(piece)
    return made.text
