"""What a user's event handler derives from, and what it may return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from typing_extensions import TypeVar

from restpipe.handlers.connection_events import does_nothing
from restpipe.handlers.context import EventContext, PeerContext
from restpipe.identity.names import NamePatterns

Method = TypeVar("Method", bound=Callable[..., Any])
Restricted = TypeVar("Restricted", bound=Callable[..., Any])

Data = TypeVar("Data", default=Any)

AT_MOST_ONCE = "__restpipe_at_most_once__"
ALLOW = "__restpipe_allow__"


class EventHandler:
    """Serves the events of a node: a method for each verb and noun.

    `GET time/utc` is served by `get_time_utc`; verbs are get, post, put, delete, patch and head, and HEAD is answered
    by `get_...` where there is no `head_...`. Methods take the context, the body, and the URL's arguments:

        async def get_cat(self, ctx, post_data, x: int, y: int = 0):
            return {"sum": x + y}

    `async def` methods run in the event loop, plain ones in a thread. `post_data` is `(mime_type, data)`: JSON is
    decoded, everything else is bytes, and both are empty strings where there is no body. Annotated with a pydantic
    model instead, it is the validated model; as `AsyncIterator[bytes]`, or `BinaryIO` in a plain method, it is read as
    it arrives, of any length. A method returns data, which is sent as JSON; or `(mime_type, return_code, data)`; or a
    `Reply`. Data that is None is an empty body, a generator's pieces are sent as they come, and a file, by its path or
    open in binary mode, is sent as HTTP has it, and closed.
    """


class ServerEventHandler(EventHandler):
    """Base of a server node's event handler."""

    @does_nothing
    def start_hook(self, ctx: PeerContext) -> Any:
        """Run when a client has connected. May be `async def`; an exception is logged and harms nothing."""

    @does_nothing
    def stop_hook(self, ctx: PeerContext) -> Any:
        """Run when a client's connection has ended. May be `async def`; an exception is logged and harms nothing."""


class ClientEventHandler(EventHandler):
    """Base of a client node's event handler."""


@dataclass(slots=True)
class Reply(Generic[Data]):
    """A result with all of HTTP.

    As an annotation, `Reply[Order]` tells those who read the docs page what the data is; nothing checks it.

    Attributes:
        data: as a handler returns it.
        mime_type: Content-Type; by default JSON, or application/octet-stream for bytes.
        code: the return code, `X-Event-Return-Code`; 0 is success.
        status: HTTP status, 200 to 599.
        headers: further headers.
    """

    data: Data = None  # type: ignore[assignment]
    mime_type: str | None = None
    code: int = 0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def at_most_once(method: Method) -> Method:
    """Mark a handler method whose event is not repeated when its outcome is unknown, not even GET, PUT or DELETE."""
    setattr(method, AT_MOST_ONCE, True)
    return method


def allow(*patterns: str) -> Callable[[Restricted], Restricted]:
    """Let only some callers call a handler method, or any method of a handler class; the others get 403.

    The rule of a method beats that of its class. Both are inherited: a method that overrides another is under its
    rule, unless it has one of its own. HEAD is under the rule of the GET method that serves it.

    Args:
        patterns: names of callers, as `ctx.caller` says them, or shell patterns such as "shop-*"; upper and lower case
            differ.

    Raises:
        ValueError: there is none, or one is no text.
    """
    names = NamePatterns(patterns)

    def restrict(restricted: Restricted) -> Restricted:
        setattr(restricted, ALLOW, names)
        return restricted

    return restrict


__all__ = ["ClientEventHandler", "EventContext", "EventHandler", "Reply", "ServerEventHandler", "allow", "at_most_once"]
