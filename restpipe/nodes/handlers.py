"""The objects that serve a node's events."""

from typing import Any

from restpipe.config import NodeSettings, make_object
from restpipe.handlers.files import FileServer, WritableFileServer


def event_handlers(settings: NodeSettings, handler: object | None = None) -> tuple[Any, ...]:
    """Make the event handler of a node, and what the settings have served beside it.

    Args:
        settings: of the node.
        handler: to use in place of one of the class that the settings name.

    Raises:
        ConfigError: a class that the settings name cannot be used.
    """
    if handler is None:
        handler = make_object(settings.event_handler, settings.variable("event_handler"))
    if settings.files is None:
        return (handler,)
    return handler, (WritableFileServer if settings.files_writable else FileServer)(settings.files)
