"""Hooks are told of connections: in order, with what is documented, and whatever they do harms nothing."""

import asyncio
import contextlib
import datetime
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from restpipe.handlers import connection_events
from restpipe.handlers.base import ServerEventHandler
from restpipe.handlers.connection_events import (
    ClientConnectionStateEvents,
    ConnectionStateEvents,
    Notifier,
    ServerConnectionStateEvents,
)
from restpipe.handlers.threads import HandlerThreads

PATIENCE = 10.0
WHEN = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)


@contextlib.asynccontextmanager
async def running(notifier: Notifier) -> AsyncIterator[None]:
    """Call hooks for as long as the context lasts, then await all that are due."""
    task = asyncio.create_task(notifier.run())
    try:
        yield
        async with asyncio.timeout(PATIENCE):
            await notifier.settle(PATIENCE)
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def told(hook: Any, *arguments: object) -> None:
    """Have one hook called."""
    notifier = Notifier(HandlerThreads(2))
    async with running(notifier):
        notifier.notify(hook, *arguments)


@pytest.mark.parametrize("base", [ClientConnectionStateEvents, ConnectionStateEvents])
@pytest.mark.parametrize(
    ("told_by", "heard_by"),
    [
        ("connect_success", "connect_success"),
        ("connect_success", "connection_success"),
        ("connect_fail", "connect_fail"),
        ("connect_fail", "connection_fail"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_client_is_told_under_both_names(
    base: type, told_by: str, heard_by: str, *, asynchronous: bool
) -> None:
    heard: list[tuple[object, ...]] = []

    def hear(self: object, retry_attempts: int, last_disconnected_dt: datetime.datetime | None) -> None:
        heard.append((retry_attempts, last_disconnected_dt))

    async def hear_in_loop(self: object, retry_attempts: int, last_disconnected_dt: datetime.datetime | None) -> None:
        await asyncio.sleep(0)
        heard.append((retry_attempts, last_disconnected_dt))

    events = type("Mine", (base,), {heard_by: hear_in_loop if asynchronous else hear})()
    await told(getattr(events, told_by), 3, None)
    await told(getattr(events, told_by), 0, WHEN)
    assert heard == [(3, None), (0, WHEN)]


async def test_a_server_is_told_of_clients_and_of_their_absence() -> None:
    heard: list[object] = []

    class Mine(ServerConnectionStateEvents):
        def connection_added(self, ip: str, new_count: int) -> None:
            heard.append(("added", ip, new_count))

        async def connection_removed(self, ip: str, new_count: int) -> None:
            heard.append(("removed", ip, new_count))

        def idle(self, waiting_since_dt: datetime.datetime, duration_s: float) -> None:
            heard.append(("idle", waiting_since_dt, duration_s))

    notifier, mine = Notifier(HandlerThreads(2)), Mine()
    async with running(notifier):
        notifier.notify(mine.connection_added, "192.0.2.1", 1)
        notifier.notify(mine.connection_removed, "192.0.2.1", 0)
        notifier.notify(mine.idle, WHEN, 60.0)
    assert heard == [("added", "192.0.2.1", 1), ("removed", "192.0.2.1", 0), ("idle", WHEN, 60.0)]


async def test_who_overrides_nothing_is_told_without_harm(caplog: pytest.LogCaptureFixture) -> None:
    client, server = ClientConnectionStateEvents(), ServerConnectionStateEvents()
    notifier = Notifier(HandlerThreads(2))
    async with running(notifier):
        notifier.notify(client.connect_success, 0, None)
        notifier.notify(client.connect_fail, 0, None)
        notifier.notify(server.connection_added, "192.0.2.1", 1)
        notifier.notify(server.connection_removed, "192.0.2.1", 0)
        notifier.notify(server.idle, WHEN, 60.0)
    assert not caplog.messages


async def test_hooks_that_nobody_wrote_take_no_place_of_those_that_somebody_did(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_events, "MOST_HOOKS", 1)
    heard: list[str] = []

    class Mine(ServerConnectionStateEvents):
        def connection_added(self, ip: str, new_count: int) -> None:
            super().connection_added(ip, new_count)
            heard.append(ip)

    mine, handler, client = Mine(), ServerEventHandler(), ClientConnectionStateEvents()
    notifier = Notifier(HandlerThreads(2))
    context: Any = None
    for hook in (handler.start_hook, handler.stop_hook):
        notifier.notify(hook, context)
    for event in (client.connection_success, client.connection_fail):
        notifier.notify(event, 0, None)
    notifier.notify(mine.connection_removed, "192.0.2.1", 0)
    notifier.notify(mine.idle, WHEN, 60.0)
    notifier.notify(mine.connection_added, "192.0.2.1", 1)
    async with running(notifier):
        pass
    assert heard == ["192.0.2.1"]
    assert not caplog.messages


async def test_hooks_are_called_one_after_the_other_in_order() -> None:
    heard: list[int] = []
    ready = threading.Event()

    async def in_loop(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        heard.append(number)

    def in_thread(number: int) -> None:
        assert ready.wait(PATIENCE)
        heard.append(number)

    notifier = Notifier(HandlerThreads(4))
    async with running(notifier):
        for number in range(10):
            notifier.notify(in_loop if number % 2 else in_thread, number)
        await asyncio.sleep(0)
        assert not heard
        ready.set()
    assert heard == list(range(10))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("broken"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("its own"),
        RecursionError(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_hook_raises_is_logged_and_the_next_is_called(
    error: BaseException, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    heard: list[str] = []

    async def fail_in_loop() -> None:
        raise error

    def fail_in_thread() -> None:
        raise error

    failing = fail_in_loop if asynchronous else fail_in_thread
    notifier = Notifier(HandlerThreads(2))
    async with running(notifier):
        notifier.notify(failing)
        notifier.notify(heard.append, "the next")
    assert heard == ["the next"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"{failing.__name__} failed" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[1] is error


async def test_a_hook_called_with_what_it_does_not_take_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    await told(lambda: None, "192.0.2.1", 1)
    assert "failed" in caplog.text


async def test_who_cannot_wait_for_hooks_longer_goes_on() -> None:
    begun, held = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        begun.set()
        await held.wait()

    notifier = Notifier(HandlerThreads(2))
    async with running(notifier):
        notifier.notify(hold)
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            before = asyncio.all_tasks()
            await notifier.settle(0.001)
            assert asyncio.all_tasks() == before
        held.set()


async def test_hooks_that_wait_for_one_that_does_not_return_are_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_events, "MOST_HOOKS", 3)
    heard: list[int] = []
    notifier = Notifier(HandlerThreads(2))
    for number in range(5):
        notifier.notify(heard.append, number)
    assert len(caplog.messages) == 2
    assert "is not called: 3 hooks wait" in caplog.text
    async with running(notifier):
        pass
    assert heard == [0, 1, 2]
