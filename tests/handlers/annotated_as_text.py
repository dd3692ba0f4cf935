"""A handler whose annotations are text, some of them known to type checkers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decimal import Decimal

    from restpipe.handlers.context import EventContext


class Lazy:
    async def get_sum(self, ctx: EventContext, post_data: Any, x: int, y: list[int] | None = None) -> Decimal:
        raise NotImplementedError


class Unresolvable:
    async def get_sum(self, ctx: EventContext, post_data: Any, x: Decimal) -> None:
        raise NotImplementedError
