"""Clients are found by certificate name first, then by address, then by what their name resolves to."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from memory_pipes import PATIENCE, Joint, Pipes, memory_pipes

from restpipe.exceptions import PeerAbsentError, PeerAmbiguousError, PeerUnknownError
from restpipe.handlers.threads import HandlerThreads
from restpipe.nodes import registry as registry_module
from restpipe.nodes.registry import Registry
from restpipe.nodes.resolver import CachedResolver, HostnameResolver
from restpipe.pipe import Pipe
from restpipe_pb.v1.pipe_pb2 import Goaway


class Hosts(HostnameResolver):
    """Resolves by a table, and counts."""

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts = hosts
        self.asked: list[str] = []

    async def resolve(self, hostname: str) -> list[str]:
        self.asked.append(hostname)
        return self.hosts.get(hostname, [])


HOSTS = {"fileserver": ["192.0.2.1"], "beta": ["192.0.2.1"], "farm": ["192.0.2.1", "192.0.2.2"], "away": ["192.0.2.9"]}


@pytest.fixture
async def pipes(leak_free: None) -> AsyncIterator[Pipes]:
    async with memory_pipes() as made:
        yield made


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(**HOSTS)


@pytest.fixture
async def registry(hosts: Hosts) -> Registry:
    """Return a registry whose grace is over."""
    return Registry(CachedResolver(hosts, HandlerThreads(1)), grace=0)


async def waiting(registry: Registry, target: str, wait: float = PATIENCE) -> "asyncio.Task[Pipe]":
    """Return a task that waits for a client, once it waits."""
    task = asyncio.create_task(registry.pipe_to(target, wait))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def add(registry: Registry, pipes: Pipes, name: str = "alpha", address: str = "192.0.2.1") -> Joint:
    joint = await pipes.join(object(), name, address)
    registry.add(joint.calling)
    return joint


@pytest.mark.parametrize("target", ["alpha", "192.0.2.1", "fileserver"])
async def test_a_client_is_found_by_name_by_address_and_by_a_name_of_its_address(
    registry: Registry, pipes: Pipes, target: str
) -> None:
    joint = await add(registry, pipes)
    await add(registry, pipes, "gamma", "192.0.2.3")
    assert await registry.pipe_to(target, 0) is joint.calling


async def test_an_ipv6_address_is_found_however_it_is_written(registry: Registry, pipes: Pipes) -> None:
    joint = await add(registry, pipes, "alpha", "2001:db8::1")
    for target in ("2001:db8::1", "[2001:db8::1]", "2001:DB8:0:0::1"):
        assert await registry.pipe_to(target, 0) is joint.calling


async def test_a_certificate_name_beats_what_the_name_resolves_to(
    registry: Registry, pipes: Pipes, hosts: Hosts
) -> None:
    await add(registry, pipes, "alpha", "192.0.2.1")
    beta = await add(registry, pipes, "beta", "192.0.2.2")
    assert await registry.pipe_to("beta", 0) is beta.calling
    assert not hosts.asked


async def test_a_client_named_like_an_address_is_found_by_that_name(registry: Registry, pipes: Pipes) -> None:
    await add(registry, pipes, "alpha", "192.0.2.1")
    odd = await add(registry, pipes, "192.0.2.1", "192.0.2.2")
    assert await registry.pipe_to("192.0.2.1", 0) is odd.calling


async def test_a_known_name_that_is_not_connected_is_never_looked_for_elsewhere(
    registry: Registry, pipes: Pipes, hosts: Hosts
) -> None:
    await add(registry, pipes, "alpha", "192.0.2.1")
    beta = await add(registry, pipes, "beta", "192.0.2.2")
    registry.remove(beta.calling)
    with pytest.raises(PeerAbsentError, match="'beta' is not connected"):
        await registry.pipe_to("beta", 0)
    assert not hosts.asked


async def test_several_clients_of_one_address_are_listed_and_each_is_found_by_its_name(
    registry: Registry, pipes: Pipes
) -> None:
    joints = [await add(registry, pipes, name) for name in ("gamma", "alpha")]
    for target in ("192.0.2.1", "fileserver", "farm"):
        with pytest.raises(PeerAmbiguousError, match=f"'{target}' is the address of several clients: alpha, gamma"):
            await registry.pipe_to(target, 0)
    assert await registry.pipe_to("gamma", 0) is joints[0].calling


async def test_one_of_several_addresses_of_a_name_is_enough(registry: Registry, pipes: Pipes) -> None:
    joint = await add(registry, pipes, "alpha", "192.0.2.2")
    assert await registry.pipe_to("farm", 0) is joint.calling


async def test_a_client_that_is_leaving_is_no_rival_for_its_address(registry: Registry, pipes: Pipes) -> None:
    leaving = await add(registry, pipes, "alpha")
    leaving.calling.close(Goaway.SHUTDOWN, "x")
    staying = await add(registry, pipes, "gamma")
    assert await registry.pipe_to("192.0.2.1", 0) is staying.calling


async def test_a_name_that_suggests_no_client_is_unknown_at_once(registry: Registry) -> None:
    async with asyncio.timeout(PATIENCE / 2):
        with pytest.raises(
            PeerUnknownError, match=r"no client named 'nobody' has .* and the name resolves to no address"
        ):
            await registry.pipe_to("nobody", PATIENCE)


async def test_a_client_that_the_settings_name_is_absent_not_unknown(registry: Registry) -> None:
    registry.expected = frozenset(["nobody"])
    with pytest.raises(PeerAbsentError, match=r"did not connect within 0\.01 s"):
        await registry.pipe_to("nobody", 0.01)


@pytest.mark.parametrize("target", ["192.0.2.9", "away"])
async def test_an_address_without_client_is_absent_not_unknown(registry: Registry, target: str) -> None:
    with pytest.raises(PeerAbsentError, match=r"did not connect within 0\.01 s"):
        await registry.pipe_to(target, 0.01)


@pytest.mark.parametrize("target", ["alpha", "192.0.2.1", "fileserver"])
async def test_a_client_that_comes_back_is_waited_for(registry: Registry, pipes: Pipes, target: str) -> None:
    before = await add(registry, pipes)
    registry.remove(before.calling)
    task = await waiting(registry, target)
    await add(registry, pipes, "gamma", "192.0.2.3")
    await asyncio.sleep(0)
    assert not task.done()
    after = await add(registry, pipes)
    assert await task is after.calling


async def test_a_pipe_that_has_just_ended_is_not_returned_but_its_successor(registry: Registry, pipes: Pipes) -> None:
    before = await add(registry, pipes)
    await before.lose()
    task = await waiting(registry, "alpha")
    after = await add(registry, pipes)
    assert await task is after.calling


async def test_who_stops_waiting_leaves_the_others_waiting(registry: Registry, pipes: Pipes) -> None:
    registry.remove((await add(registry, pipes)).calling)
    first, second = await waiting(registry, "alpha"), await waiting(registry, "alpha")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    after = await add(registry, pipes)
    assert await second is after.calling


async def test_within_the_grace_an_unknown_name_is_waited_for_as_clients_are_on_their_way(
    hosts: Hosts, pipes: Pipes
) -> None:
    registry = Registry(CachedResolver(hosts, HandlerThreads(1)), grace=PATIENCE)
    task = await waiting(registry, "newcomer")
    joint = await add(registry, pipes, "newcomer")
    assert await task is joint.calling


async def test_an_unknown_name_is_waited_for_until_the_grace_ends_and_no_longer(hosts: Hosts) -> None:
    registry = Registry(CachedResolver(hosts, HandlerThreads(1)), grace=0.05)
    async with asyncio.timeout(PATIENCE / 2):
        with pytest.raises(PeerUnknownError):
            await registry.pipe_to("nobody", PATIENCE)


class SlowHosts(HostnameResolver):
    """Resolves once it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def resolve(self, _hostname: str) -> list[str]:
        self.asked += 1
        await self.go.wait()
        return ["192.0.2.1"]


@pytest.fixture
async def slow(leak_free: None) -> AsyncIterator[SlowHosts]:
    hosts = SlowHosts()
    yield hosts
    hosts.go.set()
    await asyncio.sleep(0.01)


async def test_a_client_that_comes_is_found_by_name_while_that_is_still_being_resolved(
    slow: SlowHosts, pipes: Pipes
) -> None:
    registry = Registry(CachedResolver(slow, HandlerThreads(1)), grace=0)
    finding = await waiting(registry, "alpha")
    await add(registry, pipes, "gamma", "192.0.2.3")
    joint = await add(registry, pipes)
    async with asyncio.timeout(PATIENCE):
        assert await finding is joint.calling


@pytest.mark.parametrize("wait", [0.0, 0.05])
async def test_nobody_waits_for_a_name_to_be_resolved_longer_than_for_a_client(
    slow: SlowHosts, wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "RESOLVE_TIME", 0.02)
    registry = Registry(CachedResolver(slow, HandlerThreads(1)), grace=0)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(
            PeerAbsentError, match=r"no client named 'fileserver' has connected since .* was not resolved"
        ):
            await registry.pipe_to("fileserver", wait)


async def test_who_asks_for_a_name_that_is_being_resolved_waits_for_the_same_answer(
    slow: SlowHosts, pipes: Pipes
) -> None:
    registry = Registry(CachedResolver(slow, HandlerThreads(1)), grace=0)
    joint = await add(registry, pipes)
    finding = [await waiting(registry, "fileserver") for _ in range(3)]
    finding.pop().cancel()
    slow.go.set()
    async with asyncio.timeout(PATIENCE):
        assert [await each for each in finding] == [joint.calling] * 2
    assert slow.asked == 1


async def test_the_newer_pipe_of_a_name_takes_over_and_the_older_is_returned(registry: Registry, pipes: Pipes) -> None:
    older, newer = [await pipes.join(object()) for _ in range(2)]
    assert registry.add(older.calling) is None
    assert registry.add(newer.calling) is older.calling
    assert list(registry) == [newer.calling]
    assert await registry.pipe_to("alpha", 0) is newer.calling


async def test_removing_the_older_pipe_never_removes_the_newer(registry: Registry, pipes: Pipes) -> None:
    older, newer = [await add(registry, pipes) for _ in range(2)]
    assert not registry.remove(older.calling)
    assert await registry.pipe_to("alpha", 0) is newer.calling
    assert registry.remove(newer.calling)
    assert not registry.remove(newer.calling)
    assert len(registry) == 0


@pytest.mark.parametrize("target", ["alpha", "192.0.2.9", "nobody"])
async def test_once_closed_nobody_waits(hosts: Hosts, pipes: Pipes, target: str) -> None:
    registry = Registry(CachedResolver(hosts, HandlerThreads(1)), grace=PATIENCE)
    registry.remove((await add(registry, pipes)).calling)
    task = await waiting(registry, target)
    registry.close()
    for each in (task, registry.pipe_to(target, PATIENCE)):
        with pytest.raises(PeerAbsentError, match="this node is stopping"):
            await each


async def test_once_closed_a_pipe_that_finishes_what_it_has_takes_nothing_new(registry: Registry, pipes: Pipes) -> None:
    joint = await add(registry, pipes)
    registry.close()
    for target in ("alpha", "192.0.2.1"):
        with pytest.raises(PeerAbsentError, match="this node is stopping"):
            await registry.pipe_to(target, PATIENCE)
    assert list(registry) == [joint.calling]
