"""RestPipe: a durable bidirectional pipe between a server and clients behind NAT, with a REST surface on every node."""

import importlib
from typing import TYPE_CHECKING

from restpipe.version import __version__

if TYPE_CHECKING:
    from restpipe.embed.blocking import BlockingClientNode, BlockingRemote, BlockingStream, connect
    from restpipe.embed.nodes import ClientNode, ServerNode
    from restpipe.embed.remote import Remote, Stream
    from restpipe.exceptions import EventError, PipeFailError, RestPipeError
    from restpipe.handlers.base import ClientEventHandler, EventHandler, Reply, ServerEventHandler, allow, at_most_once
    from restpipe.handlers.connection_events import ClientConnectionStateEvents, ServerConnectionStateEvents
    from restpipe.handlers.context import EventContext, PeerContext, Result
    from restpipe.nodes.resolver import HostnameResolver
    from restpipe.responses import raise_for_exception

# A name is imported when it is first used: who catches an exception need not wait for gRPC and FastAPI.
_HOMES = {
    "BlockingClientNode": "embed.blocking",
    "BlockingRemote": "embed.blocking",
    "BlockingStream": "embed.blocking",
    "ClientConnectionStateEvents": "handlers.connection_events",
    "ClientEventHandler": "handlers.base",
    "ClientNode": "embed.nodes",
    "EventContext": "handlers.context",
    "EventError": "exceptions",
    "EventHandler": "handlers.base",
    "HostnameResolver": "nodes.resolver",
    "PeerContext": "handlers.context",
    "PipeFailError": "exceptions",
    "Remote": "embed.remote",
    "Reply": "handlers.base",
    "RestPipeError": "exceptions",
    "Result": "handlers.context",
    "ServerConnectionStateEvents": "handlers.connection_events",
    "ServerEventHandler": "handlers.base",
    "ServerNode": "embed.nodes",
    "Stream": "embed.remote",
    "allow": "handlers.base",
    "at_most_once": "handlers.base",
    "connect": "embed.blocking",
    "raise_for_exception": "responses",
}

__all__ = [
    "BlockingClientNode",
    "BlockingRemote",
    "BlockingStream",
    "ClientConnectionStateEvents",
    "ClientEventHandler",
    "ClientNode",
    "EventContext",
    "EventError",
    "EventHandler",
    "HostnameResolver",
    "PeerContext",
    "PipeFailError",
    "Remote",
    "Reply",
    "RestPipeError",
    "Result",
    "ServerConnectionStateEvents",
    "ServerEventHandler",
    "ServerNode",
    "Stream",
    "__version__",
    "allow",
    "at_most_once",
    "connect",
    "raise_for_exception",
]

if not TYPE_CHECKING:  # for which any name would be one, otherwise

    def __getattr__(name: str) -> object:
        try:
            home = _HOMES[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted(globals() | _HOMES)
