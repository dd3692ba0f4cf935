"""An event handler of many types, none of whose events fails. Copied to where a node is started."""

from collections.abc import AsyncIterator
from datetime import date
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from restpipe import EventContext, Reply, ServerEventHandler

PostData = tuple[str, Any]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Order(BaseModel):
    item: str
    amount: int = Field(ge=1, le=10)
    colours: list[Colour] = []


class Handler(ServerEventHandler):
    def get_numbers(self, ctx: EventContext, post_data: PostData, whole: int, real: float = 0.5) -> list[str]:
        return [repr(whole), repr(real)]

    async def get_kinds(
        self, ctx: EventContext, post_data: PostData, day: date, colour: Colour = Colour.RED, flag: bool = False
    ) -> dict[str, str]:
        return {"day": day.isoformat(), "colour": colour.value, "flag": str(flag)}

    def get_many(self, ctx: EventContext, post_data: PostData, names: list[str], *rest: str) -> list[str]:
        return [*names, *rest]

    def delete_thing(self, ctx: EventContext, post_data: PostData, key: UUID) -> None:
        return None

    async def post_order(self, ctx: EventContext, order: Order) -> Reply:
        return Reply(order.model_dump(mode="json"), status=201, headers={"X-Item": "taken"})

    def put_anything(self, ctx: EventContext, post_data: PostData, name: str = "") -> Any:
        return {"name": name, "mime_type": post_data[0]}

    async def post_stream(self, ctx: EventContext, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in body:
            yield piece

    def patch_text(self, ctx: EventContext, post_data: PostData, text: str) -> str:
        return text
