"""Spans for OpenTelemetry, where the program has it and has told it where they go.

Nothing of it is on the way of a request unless the node has a `Tracing`: it stands around what serves and what calls.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

from restpipe.exceptions import EventError
from restpipe.nodes.exchanges import Exchange, MakeRequest, Patience, PipeTo
from restpipe.pipe import Answer, Incoming, Pipe, Serve
from restpipe.pipe.request_ids import request_id
from restpipe.version import __version__
from restpipe_pb.v1.pipe_pb2 import Request

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanKind, Tracer

Message = MutableMapping[str, Any]
App = Callable[[Message, Any, Any], Awaitable[None]]

# ASGI messages that have the status of an answer.
_STATUS = ("http.response.start", "restpipe.response.whole", "websocket.http.response.start")


def tracing() -> Optional["Tracing"]:
    """Return what makes spans; None where opentelemetry is not installed, or was not told where spans go."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Tracing(provider.get_tracer("restpipe", __version__))


class Tracing:
    """Makes spans of what a node does: of requests at its web server, of exchanges it opens, of events it serves.

    Args:
        tracer: makes spans.
    """

    def __init__(self, tracer: "Tracer") -> None:
        from opentelemetry import propagate, trace

        self._tracer = tracer
        self._propagate = propagate
        self._trace = trace

    def serving(self, serve: Serve) -> Serve:
        """Return what makes a span of each request that `serve` answers: the one of its `ctx.traceparent`."""

        async def traced(incoming: Incoming) -> None:
            request = incoming.request
            parent = self._propagate.extract({header.name: header.value for header in reversed(request.headers)})
            name = f"{request.verb} {request.noun}" if request.noun else request.verb
            attributes = {
                "restpipe.peer": incoming.peer.name,
                "restpipe.request_id": request_id(request, incoming.label),
            }
            with self._span(name, self._trace.SpanKind.SERVER, attributes, parent):
                self._inject(request)
                await serve(incoming)

        return traced

    def exchanging(self, exchange: Exchange) -> Exchange:
        """Return what makes a span of each exchange: it ends with the head of the answer."""

        async def traced(
            pipe_to: PipeTo, make_request: MakeRequest, body: AsyncIterable[bytes] | None, patience: Patience
        ) -> tuple[Answer, int]:
            with self._span("exchange", self._trace.SpanKind.CLIENT, {}) as span:

                def make(pipe: Pipe) -> Request:
                    request = make_request(pipe)
                    self._inject(request)
                    if request.noun:
                        span.update_name(f"{request.verb} {request.noun}")
                    span.set_attribute("restpipe.peer", pipe.peer.name)
                    return request

                answer, attempts = await exchange(pipe_to, make, body, patience)
                span.set_attribute("restpipe.attempts", attempts)
                return answer, attempts

        return traced

    def door(self, app: App) -> App:
        """Return what makes a span of each request to the web application `app`, to its last byte."""

        async def traced(scope: Message, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await app(scope, receive, send)
                return
            method = scope.get("method", "GET")
            route = f"/{scope['path'].split('/', 2)[1]}"
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
            attributes = {
                "http.request.method": method,
                "http.route": route,
                "url.path": scope["path"],
                "url.scheme": scope["scheme"],
            }
            parent = self._propagate.extract(headers)
            with self._span(f"{method} {route}", self._trace.SpanKind.SERVER, attributes, parent) as span:

                async def send_and_note(message: Message) -> None:
                    if message["type"] in _STATUS:
                        span.set_attribute("http.response.status_code", message["status"])
                        if message["status"] >= 500:
                            span.set_status(self._trace.StatusCode.ERROR)
                    await send(message)

                await app(scope, receive, send_and_note)

        return traced

    @contextmanager
    def _span(self, name: str, kind: "SpanKind", attributes: dict[str, str], parent: Any = None) -> Iterator["Span"]:
        """Be in a span. A failure is told by its class alone: its text may be anything."""
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                if isinstance(error, EventError):
                    span.set_attribute("error.type", error.exception_class)
                    span.set_attribute("restpipe.executed", error.executed)
                else:
                    span.set_attribute("error.type", type(error).__name__)
                if not isinstance(error, EventError) or error.status >= 500:
                    span.set_status(self._trace.StatusCode.ERROR)
                raise

    def _inject(self, request: Request) -> None:
        """Have a request carry the current span, in place of the one it came with."""
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier)
        kept = [header for header in request.headers if header.name not in carrier]
        del request.headers[:]
        request.headers.extend(kept)
        for name, value in carrier.items():
            request.headers.add(name=name, value=value)
