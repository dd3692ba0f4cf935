"""The handlers that a node has until it is given its own: they show that the pipe works, and how a handler looks."""

import time

from restpipe.handlers.base import ClientEventHandler, ServerEventHandler
from restpipe.handlers.context import EventContext
from restpipe.handlers.payload import PostData


class ServerExamples(ServerEventHandler):
    """Examples of a server node's events."""

    async def get_time(self, _ctx: EventContext, _post_data: PostData) -> dict[str, float]:
        """Tell the time of the server, in seconds since 1970."""
        return {"time_from_server": time.time()}

    async def get_cat(self, _ctx: EventContext, _post_data: PostData, x: str, y: str) -> dict[str, str]:
        """Join two texts."""
        return {"result_from_server": x + y}


class ClientExamples(ClientEventHandler):
    """Examples of a client node's events."""

    async def get_time(self, _ctx: EventContext, _post_data: PostData) -> dict[str, float]:
        """Tell the time of the client, in seconds since 1970."""
        return {"time_from_client": time.time()}

    async def get_cat(self, _ctx: EventContext, _post_data: PostData, x: str, y: str) -> dict[str, str]:
        """Join two texts."""
        return {"result_from_client": x + y}
