"""What a flood asks for."""

from restpipe import EventContext, ServerEventHandler


class Flooded(ServerEventHandler):
    """Answers at once: in the event loop, and in a thread."""

    async def get_number(self, _ctx: EventContext, _post_data: object) -> int:
        return 42

    def get_number_sync(self, _ctx: EventContext, _post_data: object) -> int:
        return 42
