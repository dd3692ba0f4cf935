"""RestPipe: a durable bidirectional pipe between a server and clients behind NAT, with a REST surface on every node."""

from restpipe.exceptions import EventError, PipeFailError, RestPipeError
from restpipe.handlers.base import ClientEventHandler, EventHandler, Reply, ServerEventHandler, allow, at_most_once
from restpipe.handlers.connection_events import ClientConnectionStateEvents, ServerConnectionStateEvents
from restpipe.handlers.context import EventContext, PeerContext, Result
from restpipe.nodes.resolver import HostnameResolver
from restpipe.responses import raise_for_exception
from restpipe.version import __version__

__all__ = [
    "ClientConnectionStateEvents",
    "ClientEventHandler",
    "EventContext",
    "EventError",
    "EventHandler",
    "HostnameResolver",
    "PeerContext",
    "PipeFailError",
    "Reply",
    "RestPipeError",
    "Result",
    "ServerConnectionStateEvents",
    "ServerEventHandler",
    "__version__",
    "allow",
    "at_most_once",
    "raise_for_exception",
]
