"""A queue in which all who ask have turns."""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FairQueue(Generic[K, V]):
    """What waits, by key: one thing of each who asks has its turn, then the next one of each (RFC 970, section 4).

    However much one asks for, what another asks for waits for a single thing of theirs.
    """

    def __init__(self) -> None:
        # Who has the next turn stands first.
        self._turns: OrderedDict[str, OrderedDict[K, V]] = OrderedDict()
        self._asked: dict[K, str] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __contains__(self, key: K) -> bool:
        return key in self._asked

    def put(self, by: str, key: K, value: V) -> None:
        """Let something wait that is asked for by someone of this name."""
        self._asked[key] = by
        waiting = self._turns.get(by)
        if waiting is None:
            waiting = self._turns[by] = OrderedDict()
        waiting[key] = value

    def pop(self) -> tuple[K, V]:
        """Take what has the next turn.

        Raises:
            StopIteration: nothing waits.
        """
        by, waiting = next(iter(self._turns.items()))
        key, value = waiting.popitem(last=False)
        del self._asked[key]
        if waiting:
            self._turns.move_to_end(by)
        else:
            del self._turns[by]
        return key, value

    def discard(self, key: K) -> None:
        """Let something wait no longer; without effect where it does not."""
        by = self._asked.pop(key, None)
        if by is not None:
            waiting = self._turns[by]
            del waiting[key]
            if not waiting:
                del self._turns[by]

    def ahead(self, by: str) -> int:
        """Return how many have their turn before the next thing that someone of this name asks for, at most."""
        waiting = self._turns.get(by, ())
        others = len(self._turns) - bool(waiting)
        return min(len(self), len(waiting) * (others + 1) + others)

    def last(self, most: int, which: Callable[[K], bool]) -> list[K]:
        """Return at most so many, of those that may be chosen, whose turn comes last."""
        turns = ((turn, key) for waiting in self._turns.values() for turn, key in enumerate(waiting) if which(key))
        return [key for _, key in heapq.nlargest(most, turns, key=itemgetter(0))]
