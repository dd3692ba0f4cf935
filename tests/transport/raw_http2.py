"""A client of HTTP/2 that does what no library would: it sends frames, and reads them, as it likes."""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator

from restpipe.identity import Identity

# Frames, flags and a setting (RFC 9113 section 6).
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL = 8
INITIAL_WINDOW_SIZE = 4


class RawHttp2:
    """One connection, on which the preface was sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Send a frame."""
        self._writer.write(len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload)

    def settings(self, changed: dict[int, int]) -> None:
        """Send settings, by number."""
        self.send(SETTINGS, 0, 0, b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in changed.items()))

    def call(self, stream: int, path: str, message: bytes | None = None) -> None:
        """Begin a call of gRPC; with a message, that is all there is to it."""
        fields = {
            ":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost",
            "te": "trailers", "content-type": "application/grpc",
        }  # fmt: skip
        words = (word for field in fields.items() for word in field)
        literals = (bytes([len(word)]) + word.encode() for word in words)
        # Literal fields without indexing, whose names are new (RFC 7541 section 6.2.2).
        self.send(HEADERS, END_HEADERS, stream, b"".join(b"\0" + name + next(literals) for name in literals))
        if message is not None:
            self.send(DATA, END_STREAM, stream, bytes(1) + len(message).to_bytes(4) + message)

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self.send(RST_STREAM, 0, stream, CANCEL.to_bytes(4))

    async def until(self, kind: int) -> None:
        """Read up to a frame of this kind.

        Raises:
            EOFError: there is none, for the connection ended.
        """
        head = bytes(4)
        while head[3] != kind:
            head = await self._reader.readexactly(9)
            await self._reader.readexactly(int.from_bytes(head[:3]))

    async def answer(self) -> None:
        """Acknowledge settings and pings, until cancelled, as who wants more than a few calls must."""
        while True:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
            if head[3] in (SETTINGS, PING) and not head[4] & ACK:
                self.send(head[3], ACK, 0, payload if head[3] == PING else b"")

    async def end(self) -> None:
        """Read to the end of the connection, which the server makes."""
        while await self._reader.read(65536):
            pass


@contextlib.asynccontextmanager
async def raw_http2(identity: Identity, port: int) -> AsyncIterator[RawHttp2]:
    """Connect with an identity."""
    context = ssl.create_default_context(cadata=identity.ca_pem.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with tempfile.NamedTemporaryFile() as file:
        file.write(identity.key_pem + identity.certificate_pem)
        file.flush()
        context.load_cert_chain(file.name)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        yield RawHttp2(reader, writer)
    finally:
        writer.transport.abort()
