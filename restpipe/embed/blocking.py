"""Nodes for programs that block: scripts, notebooks, plain tests."""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from restpipe.embed.loop_thread import LoopThread
from restpipe.embed.nodes import ClientNode
from restpipe.embed.remote import Remote, Stream
from restpipe.handlers.asgi import AsgiApp
from restpipe.handlers.context import Result

# Bytes that a thread takes from the event loop at a time, where there are so many.
_ENOUGH = 256 * 1024


class BlockingStream:
    """An answer whose body is read as it arrives: an iterator over its pieces, as bytes.

    Attributes:
        mime_type: its Content-Type, parameters included, "" for none.
        length: bytes of the whole body; None where the handler does not know.
        return_code: the handler's own result code; 0 is success.
        status: HTTP status.
        headers: further headers, names in lower case.
    """

    def __init__(self, stream: Stream, thread: LoopThread[Any]) -> None:
        self._stream = stream
        self._thread = thread
        self.mime_type = stream.mime_type
        self.length = stream.length
        self.return_code = stream.return_code
        self.status = stream.status
        self.headers: Mapping[str, str] = stream.headers

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._thread.run(self._stream.body.read_some(_ENOUGH)):
            yield piece

    def read(self) -> bytes:
        """Return the rest of the body; see `Stream.read`."""
        return self._thread.run(self._stream.read())


class BlockingRemote:
    """A node at the other end of a pipe, to be called by any thread."""

    def __init__(self, remote: Remote, thread: LoopThread[Any]) -> None:
        self.name = remote.name
        self._remote = remote
        self._thread = thread

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until it is connected; see `Remote.wait_connected`."""
        self._thread.run(self._remote.wait_connected(timeout))

    def call(
        self,
        verb: str,
        noun: str,
        *arguments: object,
        data: Any = None,
        mime_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        wait: float | None = None,
        **query: object,
    ) -> Result:
        """Have an event executed, and return what its handler returned; see `Remote.call`.

        Ctrl-C cancels the handler.
        """
        return self._thread.run(
            self._remote.call(
                verb, noun, *arguments,
                data=data, mime_type=mime_type, headers=headers, timeout=timeout, wait=wait, **query,
            )
        )  # fmt: skip

    @contextlib.contextmanager
    def stream(
        self,
        verb: str,
        noun: str,
        *arguments: object,
        data: Any = None,
        mime_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        wait: float | None = None,
        **query: object,
    ) -> Generator[BlockingStream, None, None]:
        """Have an event executed, and read the answer's body as it arrives, within a `with`; see `Remote.stream`."""
        streaming = self._remote.stream(
            verb, noun, *arguments,
            data=data, mime_type=mime_type, headers=headers, timeout=timeout, wait=wait, **query,
        )  # fmt: skip
        stream = self._thread.run(_entered(streaming))
        try:
            yield BlockingStream(stream, self._thread)
        except BaseException as error:
            if not self._thread.run(_left(streaming, error)):
                raise
        else:
            self._thread.run(_left(streaming, None))


class BlockingClientNode(BlockingRemote):
    """A client node in a thread of its own, made by `restpipe.connect`. Any thread may use it."""

    def __init__(self, node: ClientNode) -> None:
        self._closes = LoopThread(lambda: node, "restpipe")
        self._node = node
        super().__init__(node.server, self._closes)

    def client(self, name: str) -> BlockingRemote:
        """Return another client of the server, to be called through that; see `ClientNode.client`."""
        return BlockingRemote(self._node.client(name), self._closes)

    def close(self) -> None:
        """Let what is in flight finish for at most `RP_DRAIN_TIMEOUT_S`, and end: what leaving `with` does."""
        self._closes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def connect(*, handler: object | None = None, asgi: AsgiApp | str = "", **settings: object) -> BlockingClientNode:
    """Connect to a server, for scripts, notebooks, and other programs that block.

        with restpipe.connect(target_hostname="pipe.example.org") as node:
            print(node.call("get", "time").data)

    The connection is kept, and made again where it is lost, until the end of the block, or of the interpreter. A name
    has one pipe: a script beside a client node needs an identity of its own.

    Args:
        handler: the event handler, or its class; by default that which the settings name, or none at all.
        asgi: an ASGI application that serves in place of a handler, or where it is, as in "package.module:app".
        settings: by keyword, named as in `restpipe.config.ClientSettings`; variables and the user config module have
            the rest.

    Raises:
        ConfigError: settings are wrong. The message has a line for each.
        IdentityError: the key or the certificates cannot be used.
        PeerAbsentError: there was no connection within `connection_wait_timeout_s`, unless that is 0.
    """
    made = ClientNode(handler=handler, asgi=asgi, **settings)
    node = BlockingClientNode(made)
    if made.settings.connection_wait_timeout_s:
        try:
            node.wait_connected()
        except BaseException:
            node.close()
            raise
    return node


async def _entered(streaming: "contextlib.AbstractAsyncContextManager[Stream]") -> Stream:
    return await streaming.__aenter__()


async def _left(streaming: "contextlib.AbstractAsyncContextManager[Stream]", error: BaseException | None) -> bool:
    kind = None if error is None else type(error)
    return bool(await streaming.__aexit__(kind, error, None if error is None else error.__traceback__))
