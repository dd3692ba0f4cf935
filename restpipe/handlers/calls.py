"""What a Python program asks of a peer, as the request that a pipe carries."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from pydantic_core import to_jsonable_python

from restpipe.handlers import payload
from restpipe.handlers.answers import KEYED
from restpipe.pipe import Pipe
from restpipe_pb.v1.pipe_pb2 import Header, Parameter, Request


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
    ) -> None:
        self._verb = verb.lower()
        self._noun = noun
        self._arguments = [_as_text(argument) for argument in arguments]
        self._query = [(name, _as_text(value)) for name, value in query.items() if value is not None]
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._content_type = content_type
        self._body = body
        self._length = length

    def request_to(self, pipe: Pipe) -> Request:
        """Return the request for a pipe, without `timeout_ms`; a new one each time."""
        headers = self._headers
        key = headers.get("idempotency-key", "") if pipe.remembers and self._verb in KEYED else ""
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
        )
        if self._length is not None:
            request.body_length = self._length
        if pipe.forwards:
            request.target = self._target()
        else:
            request.noun = self._noun.strip("/")
            request.arguments.extend(self._arguments)
            request.query.extend(Parameter(name=name, value=value) for name, value in self._query)
        return request

    def _target(self) -> str:
        """Return what is asked as the target of a request, for a peer that passes it on to an HTTP service."""
        target = "/" + quote(self._noun.lstrip("/"))
        for argument in self._arguments:
            target = f"{target.rstrip('/')}/{quote(argument, safe='')}"
        query = urlencode(self._query)
        return f"{target}?{query}" if query else target


def _as_text(value: object) -> str:
    """Return an argument as it is written in a URL."""
    if type(value) is str:
        return value
    plain = to_jsonable_python(value, fallback=str)
    return plain if isinstance(plain, str) else payload.encode_json(plain).decode()
