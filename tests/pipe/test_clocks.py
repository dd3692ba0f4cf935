"""One timer keeps the time of all exchanges of a pipe."""

import asyncio
import math

from restpipe.pipe.clocks import Clocks


class Sand:
    """A clock that notes when it ran out."""

    def __init__(self, name: str, seconds: float, ran_out: "asyncio.Queue[str]") -> None:
        self.name = name
        self.deadline = asyncio.get_running_loop().time() + seconds
        self._ran_out = ran_out

    def expire(self) -> None:
        self.deadline = math.inf
        self._ran_out.put_nowait(self.name)


async def test_the_clock_that_ends_first_runs_out_first_whatever_the_order_of_their_start() -> None:
    ran_out: asyncio.Queue[str] = asyncio.Queue()
    live = [Sand("hour", 3600, ran_out), Sand("early", 0.02, ran_out), Sand("middle", 0.04, ran_out)]
    clocks = Clocks(lambda: live)
    for sand in live:
        clocks.start(sand.deadline)

    async with asyncio.timeout(10):
        # On a machine that stood still meanwhile, both are due at once.
        assert {await ran_out.get(), await ran_out.get()} == {"early", "middle"}
    clocks.stop()


async def test_a_clock_that_was_started_again_runs_out_at_its_new_deadline() -> None:
    ran_out: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    sand = Sand("it", 0.02, ran_out)
    clocks = Clocks(lambda: [sand])
    clocks.start(sand.deadline)
    sand.deadline = later = loop.time() + 0.06

    async with asyncio.timeout(5):
        await ran_out.get()
    assert loop.time() >= later - 0.002


async def test_what_ended_before_its_deadline_never_runs_out() -> None:
    ran_out: asyncio.Queue[str] = asyncio.Queue()
    gone, stopped, last = Sand("gone", 0.01, ran_out), Sand("stopped", 0.01, ran_out), Sand("last", 0.03, ran_out)
    live = [gone, stopped, last]
    clocks = Clocks(lambda: live)
    for sand in live:
        clocks.start(sand.deadline)
    live.remove(gone)
    stopped.deadline = math.inf

    async with asyncio.timeout(5):
        assert await ran_out.get() == "last"
    assert ran_out.empty()


async def test_a_stopped_set_of_clocks_leaves_no_timer() -> None:
    ran_out: asyncio.Queue[str] = asyncio.Queue()
    sand = Sand("it", 0.01, ran_out)
    clocks = Clocks(lambda: [sand])
    clocks.start(sand.deadline)
    clocks.stop()

    other = Sand("other", 0.02, ran_out)
    others = Clocks(lambda: [other])
    others.start(other.deadline)
    async with asyncio.timeout(5):
        assert await ran_out.get() == "other"
    assert ran_out.empty()
