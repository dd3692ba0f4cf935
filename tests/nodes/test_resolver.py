"""Names are resolved by the user's class, in a thread where it blocks, and not for every request anew."""

import asyncio
import threading
from collections.abc import Awaitable, Iterable

import pytest

from restpipe.handlers.threads import HandlerThreads
from restpipe.nodes import resolver
from restpipe.nodes.resolver import CachedResolver, DnsResolver, HostnameResolver


class Blocking(HostnameResolver):
    """A resolver that is not asynchronous."""

    def __init__(self, found: "str | Iterable[str] | None") -> None:
        self.found = found
        self.threads: list[threading.Thread] = []

    def resolve(self, hostname: str) -> "str | Iterable[str]":
        self.threads.append(threading.current_thread())
        return self.found  # type: ignore[return-value]  # users may return None


class Counting(HostnameResolver):
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(self, hostname: str) -> str:
        self.asked.append(hostname)
        return f"192.0.2.{len(self.asked)}"


def cached(inner: HostnameResolver) -> CachedResolver:
    return CachedResolver(inner, HandlerThreads(1))


@pytest.mark.parametrize(
    ("found", "addresses"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        (["192.0.2.1", "192.0.2.2", "192.0.2.1"], ("192.0.2.1", "192.0.2.2")),
        (iter(["192.0.2.1"]), ("192.0.2.1",)),
        ([], ()),
        (None, ()),
        ("", ()),
    ],
)
async def test_a_resolver_that_blocks_runs_in_a_thread_and_returns_one_or_several_or_none(
    found: "str | Iterable[str] | None", addresses: tuple[str, ...]
) -> None:
    inner = Blocking(found)
    assert tuple(await cached(inner).resolve("name")) == addresses
    assert inner.threads[0] is not threading.main_thread()


async def test_a_plain_method_that_returns_an_awaitable_is_awaited() -> None:
    class Delegating(HostnameResolver):
        def resolve(self, hostname: str) -> Awaitable[str]:
            return asyncio.sleep(0, f"192.0.2.{len(hostname)}")

    assert await cached(Delegating()).resolve("name") == ("192.0.2.4",)


async def test_an_answer_is_remembered_for_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Counting()
    names = cached(inner)
    assert await names.resolve("a") == await names.resolve("a") == ("192.0.2.1",)
    assert await names.resolve("b") == ("192.0.2.2",)
    assert inner.asked == ["a", "b"]
    loop = asyncio.get_running_loop()
    later = loop.time() + resolver.CACHE_TIME
    monkeypatch.setattr(loop, "time", lambda: later)
    assert await names.resolve("a") == ("192.0.2.3",)


async def test_the_memory_of_names_is_bounded() -> None:
    names = cached(Counting())
    for i in range(resolver.CACHE_SIZE + 10):
        await names.resolve(str(i))
    assert len(names._cache) == resolver.CACHE_SIZE
    assert str(resolver.CACHE_SIZE + 9) in names._cache


async def test_few_names_are_looked_up_at_once_and_who_leaves_before_its_turn_is_forgotten() -> None:
    class Slow(Counting):
        answers = asyncio.Event()

        async def resolve(self, hostname: str) -> str:
            self.asked.append(hostname)
            await self.answers.wait()
            return f"192.0.2.{hostname}"

    inner = Slow()
    names = cached(inner)
    first = [str(number) for number in range(resolver.LOOKUPS)]
    asking = [asyncio.create_task(names.resolve(name)) for name in [*first, "left", "100", "100", "0"]]
    for _ in range(3):
        await asyncio.sleep(0)
    asking.pop(-4).cancel()
    for each in asking[: len(first) - 1]:
        each.cancel()  # which ends no look-up
    for _ in range(3):
        await asyncio.sleep(0)
    assert inner.asked == first
    inner.answers.set()
    async with asyncio.timeout(10):
        assert [await each for each in asking[-4:]] == [(f"192.0.2.{name}",) for name in (first[-1], "100", "100", "0")]
    assert inner.asked == [*first, "100"]


async def test_what_the_users_resolver_raises_is_not_hidden_and_not_remembered() -> None:
    class Failing(Counting):
        async def resolve(self, hostname: str) -> str:
            await super().resolve(hostname)
            raise LookupError(hostname)

    inner = Failing()
    names = cached(inner)
    for _ in range(2):
        with pytest.raises(LookupError, match="name"):
            await names.resolve("name")
    assert inner.asked == ["name", "name"]


async def test_the_system_resolves_localhost_to_loopback() -> None:
    assert {"127.0.0.1", "::1"} & {*await DnsResolver().resolve("localhost")}


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 300, "x..y", "\udcff", "a b"])
async def test_a_name_that_cannot_be_resolved_has_no_addresses(name: str) -> None:
    assert await DnsResolver().resolve(name) == []


async def test_the_base_class_is_to_be_overridden() -> None:
    with pytest.raises(NotImplementedError):
        HostnameResolver().resolve("name")


async def test_nothing_is_left_of_lookups_that_nobody_answers_once_they_are_ended() -> None:
    class Silent(HostnameResolver):
        def __init__(self) -> None:
            self.asked = asyncio.Event()
            self.ended = False

        async def resolve(self, hostname: str) -> str:
            self.asked.set()
            never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            try:
                return await never
            finally:
                self.ended = True

    silent = Silent()
    names = cached(silent)
    asking = asyncio.create_task(names.resolve("name"))
    await silent.asked.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert not silent.ended
    await names.close()
    assert silent.ended
