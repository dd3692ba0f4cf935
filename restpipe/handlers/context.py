"""What a handler is told of the event that it serves, and of the peer."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from restpipe.exceptions import BadAnswerError, BadBodyError, BodyTooLargeError
from restpipe.handlers import payload
from restpipe.handlers.arguments import first_fault
from restpipe.handlers.calls import Outgoing
from restpipe.handlers.threads import run_in_loop
from restpipe.pipe import Answer, Incoming, Pipe
from restpipe.pipe.request_ids import REQUEST_ID, TRACEPARENT, request_id, traceparent
from restpipe.transport.carrier import Peer

log = logging.getLogger("restpipe.handler")

T = TypeVar("T")

_LONGEST_TIMEOUT_MS = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a call of the peer returned.

    Attributes:
        data: decoded as a handler's `post_data` is: JSON, or bytes, or "" for none.
        mime_type: its MIME type, "" for none.
        return_code: the handler's own result code; 0 is success.
        status: HTTP status.
        headers: further headers, names in lower case.
    """

    data: Any
    mime_type: str
    return_code: int
    status: int
    headers: Mapping[str, str]

    def parsed(self, kind: type[T]) -> T:
        """Return the data as a pydantic model, a dataclass, a `list[int]`, or what else pydantic makes of JSON.

        Raises:
            BadAnswerError: the data is no such thing. The message names what does not fit.
        """
        try:
            return TypeAdapter(kind).validate_python(self.data)
        except ValidationError as error:
            raise BadAnswerError(f"the answer cannot be used: {first_fault(error)}") from error


class PeerContext:
    """A connected peer, as hooks see it.

    Attributes:
        peer: its name, address and certificate.
    """

    def __init__(self, pipe: Pipe, loop: asyncio.AbstractEventLoop, timeout: float, max_body: int) -> None:
        self.peer: Peer = pipe.peer
        self._pipe = pipe
        self._loop = loop
        self._timeout = timeout
        self._max_body = max_body

    @property
    def caller(self) -> str:
        """The peer's name: a client's is its certificate's; the server's is the host that the client dials.

        Its certificate names that host.
        """
        return self.peer.name

    @cached_property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger that says which peer it speaks of."""
        return logging.LoggerAdapter(log, {"peer": self.peer.name})

    async def call(
        self,
        verb: str,
        noun: str,
        *arguments: object,
        data: Any = None,
        mime_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the request
        **query: object,
    ) -> Result:
        """Call an event of the peer over the same pipe, while serving one of its events too.

        Args:
            verb: such as "get".
            noun: such as "time/utc".
            arguments: positional ones, sent as text: what is not text, as a result's JSON has it.
            data: body, encoded as a handler's result is.
            mime_type: its MIME type; JSON by default, or application/octet-stream for bytes.
            headers: further headers.
            timeout: seconds; by default what remains of the event being served.
            query: keyword arguments, sent likewise; those that are None are not.

        Raises:
            EventError: the event did not succeed; its class says how.

        Cancelling cancels the peer's handler.
        """
        content_type, body = payload.encode(data, mime_type)
        sent = self._passed_on() | {name.lower(): value for name, value in (headers or {}).items()}
        # A caller that the server passed on is called back by the same way.
        to = "" if self.peer is self._pipe.peer else self.peer.name
        request = Outgoing(verb, noun, arguments, query, sent, content_type, body, to=to).request_to(self._pipe)
        timeout_ms = 1000 * (self._remaining() if timeout is None else timeout)
        request.timeout_ms = int(min(max(1, timeout_ms), _LONGEST_TIMEOUT_MS))
        return await read_result(await self._pipe.call(request), self._max_body)

    def call_sync(self, verb: str, noun: str, *arguments: object, **options: Any) -> Result:
        """Do what `call` does, for handlers that are not asynchronous.

        Raises:
            RuntimeError: it is called in the event loop, which would wait for itself.
            EventError: as in `call`.
        """
        return run_in_loop(
            lambda: self.call(verb, noun, *arguments, **options), self._loop, "use `await ctx.call(...)`"
        )

    def _remaining(self) -> float:
        return self._timeout

    def _passed_on(self) -> dict[str, str]:
        """Return the headers that calls have by themselves."""
        return {}


class EventContext(PeerContext):
    """The event that is served.

    Attributes:
        exchange_id: number of the exchange on its pipe.
    """

    def __init__(self, incoming: Incoming, loop: asyncio.AbstractEventLoop, max_body: int) -> None:
        super().__init__(incoming.pipe, loop, incoming.timeout, max_body)
        self.peer = incoming.peer  # another client, where the server passed the event on
        self._incoming = incoming
        self.exchange_id = incoming.id

    @property
    def verb(self) -> str:
        """The verb, in lower case."""
        return self._incoming.request.verb

    @property
    def noun(self) -> str:
        """The noun as in the URL, such as "time/utc"."""
        return self._incoming.request.noun

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, names in lower case; repeated ones joined by commas (RFC 9110 section 5.3)."""
        request = self._incoming.request
        headers: dict[str, str] = {}
        for header in request.headers:
            earlier = headers.get(header.name)
            headers[header.name] = header.value if earlier is None else f"{earlier}, {header.value}"
        if request.content_type:
            headers["content-type"] = request.content_type
        if request.idempotency_key:
            headers["idempotency-key"] = request.idempotency_key
        return headers

    @cached_property
    def request_id(self) -> str:
        """What names the request in the logs of all nodes: the caller's X-Request-ID, or its exchange's name."""
        return request_id(self._incoming.request, self._incoming.label)

    @cached_property
    def traceparent(self) -> str:
        """The trace context that the request came with (W3C Trace Context), "" for none."""
        return traceparent(self._incoming.request)

    @property
    def content_type(self) -> str:
        """The body's Content-Type as it was sent, "" where none was."""
        return self._incoming.request.content_type

    @property
    def content_length(self) -> int | None:
        """Bytes of the whole body; None where it is streamed and its sender did not tell."""
        return self._incoming.body.length

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """The URL's query, in order, repeats kept."""
        return [(parameter.name, parameter.value) for parameter in self._incoming.request.query]

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, after which the handler is cancelled and the caller told so."""
        return self._incoming.remaining

    @cached_property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger that says which event it speaks of."""
        extra = {
            "peer": self.peer.name,
            "exchange": self.exchange_id,
            "event": f"{self.verb} {self.noun}",
            "request_id": self.request_id,
            "traceparent": self.traceparent,
        }
        return logging.LoggerAdapter(log, extra)

    def _remaining(self) -> float:
        return self.remaining

    def _passed_on(self) -> dict[str, str]:
        passed_on = {REQUEST_ID: self.request_id}
        for name in (TRACEPARENT, "tracestate") if self.traceparent else ():
            if value := self.headers.get(name):
                passed_on[name] = value
        return passed_on


async def read_result(answer: Answer, max_body: int) -> Result:
    """Read an answer whole.

    Args:
        answer: of a call.
        max_body: bytes that its body may have.

    Raises:
        BadAnswerError: the answer is too large, or is not what it says.
        EventError: it broke.
    """
    response = answer.response
    try:
        mime_type, data = payload.decode(response.content_type, await answer.body.read(max_body))
    except (BodyTooLargeError, BadBodyError) as error:
        raise BadAnswerError(f"the answer cannot be used: {error}") from error
    finally:
        answer.close()
    return Result(
        data=data,
        mime_type=mime_type,
        return_code=response.return_code,
        status=response.status,
        headers={header.name: header.value for header in response.headers},
    )
