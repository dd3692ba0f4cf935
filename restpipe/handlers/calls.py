"""What a Python program asks of a peer, as the request that a pipe carries."""

from collections.abc import Mapping

from pydantic_core import to_jsonable_python

from restpipe.exceptions import PeerTooOldError
from restpipe.handlers import payload
from restpipe.handlers.answers import KEYED
from restpipe.handlers.paths import target_of
from restpipe.pipe import Pipe
from restpipe_pb.v1.pipe_pb2 import Header, Parameter, Request

SERVER_TOO_OLD = "the server's software is too old to pass requests on to other clients: update it"


class Outgoing:
    """A call, before it is known by which pipe it goes.

    Args:
        verb: such as "get".
        noun: such as "time/utc".
        arguments: positional ones; what is not text is written as a result's JSON has it.
        query: keyword arguments, written likewise; those that are None are left out.
        headers: further headers.
        content_type: of the body.
        body: what goes with the head of it.
        length: bytes of the whole body where more of it follows; None where that is not known.
        to: the client that the server is to pass it on to; "" where it is for the peer itself.
        wait: seconds that the server waits for that client where it is not connected.
    """

    def __init__(
        self,
        verb: str,
        noun: str,
        arguments: tuple[object, ...],
        query: Mapping[str, object],
        headers: Mapping[str, str] | None,
        content_type: str,
        body: bytes,
        length: int | None = None,
        to: str = "",
        wait: float = 0.0,
    ) -> None:
        self._verb = verb.lower()
        self._noun = noun
        self._arguments = [_as_text(argument) for argument in arguments]
        self._query = [(name, _as_text(value)) for name, value in query.items() if value is not None]
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._content_type = content_type
        self._body = body
        self._length = length
        self._to = to
        self._wait_ms = min(round(1000 * wait), 2**32 - 1)

    def request_to(self, pipe: Pipe) -> Request:
        """Return the request for a pipe, without `timeout_ms`; a new one each time.

        Raises:
            PeerTooOldError: it is for another client, and the server passes none on.
        """
        if self._to and not pipe.relays:
            raise PeerTooOldError(SERVER_TOO_OLD)
        headers = self._headers
        memory = pipe.relays if self._to else pipe.remembers
        key = headers.get("idempotency-key", "") if memory and self._verb in KEYED else ""
        request = Request(
            verb=self._verb,
            headers=[
                Header(name=name, value=value)
                for name, value in headers.items()
                if not (key and name == "idempotency-key")
            ],
            content_type=self._content_type,
            body=self._body,
            idempotency_key=key,
            to=self._to,
            wait_ms=self._wait_ms,
        )
        if self._length is not None:
            request.body_length = self._length
        if pipe.forwards and not self._to:
            request.target = target_of(self._noun, self._arguments, self._query)
        else:
            request.noun = self._noun.strip("/")
            request.arguments.extend(self._arguments)
            request.query.extend(Parameter(name=name, value=value) for name, value in self._query)
        return request


def _as_text(value: object) -> str:
    """Return an argument as it is written in a URL."""
    if type(value) is str:
        return value
    plain = to_jsonable_python(value, fallback=str)
    return plain if isinstance(plain, str) else payload.encode_json(plain).decode()
