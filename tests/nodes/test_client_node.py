"""The client node dials for ever, backs off where it must, and stops wherever it is."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
from live_handlers import Told
from live_nodes import PATIENCE, client_settings, connected, own_tasks, running_client, running_server

from restpipe.exceptions import PeerAbsentError
from restpipe.nodes.client import ClientNode, back_off
from restpipe.nodes.exchanges import Patience, exchange
from restpipe.transport import grpc_client
from restpipe_pb.v1.pipe_pb2 import Goaway, Request


def told(node: Any) -> Told:
    events: Told = node._events
    return events


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def silent_port() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Yield a port that accepts connections and never says anything, and what is set once one came."""
    came = asyncio.Event()
    over = asyncio.Event()

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await over.wait()
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], came
    finally:
        over.set()
        listener.close()


async def test_the_server_may_start_after_the_client_and_be_asked_before_that(
    identity_files: Path, leak_free: None
) -> None:
    port = free_port()
    async with running_client(identity_files, port) as client:
        asking = asyncio.create_task(
            exchange(
                client.pipe_to_server,
                lambda _pipe: Request(verb="get", noun="value"),
                None,
                Patience(PATIENCE, PATIENCE),
            )
        )
        await told(client).until("connect_fail", 2)
        assert not asking.done()
        async with running_server(identity_files, bind_port=port):
            answer, attempts = await asking
            assert (answer.body.take_now(), attempts) == (b'{"value": 1}', 1)


async def test_attempts_are_told_with_the_number_that_failed_before_and_the_last_disconnection(
    identity_files: Path, leak_free: None
) -> None:
    port = free_port()
    async with running_client(identity_files, port) as client:
        await told(client).until("connect_fail", 3)
        async with running_server(identity_files, bind_port=port):
            (success,) = await told(client).until("connect_success")
            fails = await told(client).until("connect_fail")
            assert [fail[1] for fail in fails] == list(range(len(fails)))
            assert {fail[2] for fail in fails} == {None}
            assert success == ("connect_success", len(fails), None)
        again = (await told(client).until("connect_fail", len(fails) + 1))[len(fails)]
        assert again[1] == 0
        assert again[2].tzinfo is not None


async def test_a_server_that_was_restarted_is_found_again(identity_files: Path, leak_free: None) -> None:
    port = free_port()
    async with running_client(identity_files, port) as client:
        for times in range(1, 4):
            async with running_server(identity_files, bind_port=port) as server:
                await told(client).until("connect_success", times)
                await connected(server, client)


async def test_an_absent_server_is_waited_for_as_long_as_asked_and_the_cause_is_told(
    identity_files: Path, leak_free: None
) -> None:
    async with running_client(identity_files, free_port()) as client:
        await told(client).until("connect_fail")
        with pytest.raises(PeerAbsentError, match=r"no pipe to the server within 0\.01 s: .*nothing listens there"):
            await client.pipe_to_server(0.01)
        with pytest.raises(PeerAbsentError, match="within 0 s"):
            await client.pipe_to_server(0)


@pytest.mark.parametrize("end", ["takeover", "protocol error", "cut"])
async def test_a_request_whose_pipe_ends_waits_for_the_next_one_without_stopping_the_node(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, leak_free: None, end: str
) -> None:
    monkeypatch.setattr("restpipe.nodes.client.TAKEOVER_BACKOFF", 0.1)
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        asking = asyncio.create_task(
            exchange(
                client.pipe_to_server,
                lambda _pipe: Request(verb="get", noun="wait"),
                None,
                Patience(PATIENCE, PATIENCE),
            )
        )
        await server.handler.entered.wait()
        server.handler.entered.clear()
        pipe = await server.pipe_to("alpha", 0)
        match end:
            case "takeover":
                pipe.close(Goaway.TAKEOVER, "another one came")
            case "protocol error":
                pipe.close(Goaway.PROTOCOL_ERROR, "the test says so")
            case "cut":
                (ours,) = client.pipes
                await ours._carrier.close()
        async with asyncio.timeout(PATIENCE):
            await server.handler.entered.wait()
            server.handler.release.set()
            _, attempts = await asking
        assert attempts == 2


@pytest.mark.parametrize("reason", [Goaway.TAKEOVER, Goaway.CERTIFICATE])
async def test_who_is_told_that_it_is_not_wanted_waits_before_it_comes_back(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, leak_free: None, reason: Goaway.Reason.ValueType
) -> None:
    monkeypatch.setattr("restpipe.nodes.client.TAKEOVER_BACKOFF", 0.5)
    loop = asyncio.get_running_loop()
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port, reconnect_max_s=0.5) as client,
    ):
        await connected(server, client)
        lost_at = loop.time()
        (await server.pipe_to("alpha", 0)).close(reason, "the test says so")
        await told(client).until("connect_success", 2)
        assert loop.time() - lost_at >= 0.5


async def test_callers_are_told_why_the_server_let_this_node_go_before_it_was_dialled_again(
    identity_files: Path, leak_free: None
) -> None:
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port, reconnect_max_s=60) as client,
    ):
        await connected(server, client)
        (await server.pipe_to("alpha", 0)).close(Goaway.CERTIFICATE, "it was revoked")
        await (await client.pipe_to_server(0)).ended
        with pytest.raises(PeerAbsentError, match=r"no pipe to the server within 0\.2 s: it was revoked"):
            await client.pipe_to_server(0.2)
        assert client.last_failure == "it was revoked"


async def test_a_server_that_greets_and_leaves_again_and_again_is_dialled_ever_later(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    monkeypatch.setattr("restpipe.nodes.client.SHORT_LIFE", PATIENCE)
    loop = asyncio.get_running_loop()
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port, reconnect_min_s=0.1, reconnect_max_s=0.4) as client,
    ):
        began = loop.time()
        for times in range(1, 5):
            await told(client).until("connect_success", times)
            (await server.pipe_to("alpha", PATIENCE)).close(Goaway.SHUTDOWN, "come back")
        await told(client).until("connect_success", 5)
        assert loop.time() - began >= (0.1 + 0.2 + 0.4 + 0.4) / 2


async def test_a_connection_that_breaks_again_and_again_is_made_anew_as_soon_as_at_first(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    monkeypatch.setattr("restpipe.nodes.client.SHORT_LIFE", PATIENCE)
    pauses = []

    def pause(least: float, most: float) -> float:
        pauses.append((least, most))
        return 0

    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port, reconnect_min_s=0.1, reconnect_max_s=PATIENCE) as client,
    ):
        with monkeypatch.context() as patch:
            for times in range(1, 6):
                await told(client).until("connect_success", times)
                patch.setattr("restpipe.nodes.client.random.uniform", pause)
                (pipe,) = client.pipes
                await pipe._carrier.close()
            await told(client).until("connect_success", 6)
    assert pauses == [(0, 0.1)] * 5


async def test_who_loses_its_name_again_and_again_leaves_it_for_longer_each_time_and_says_why_to_its_callers(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    monkeypatch.setattr("restpipe.nodes.client.TAKEOVER_BACKOFF", 0.05)
    monkeypatch.setattr("restpipe.nodes.client.MOST_TAKEOVER_BACKOFF", 0.15)
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        for times in range(1, 5):
            await told(client).until("connect_success", times)
            pipe = await server.pipe_to("alpha", PATIENCE)
            if times == 4:
                monkeypatch.setattr("restpipe.nodes.client.MOST_TAKEOVER_BACKOFF", 60.0)
                monkeypatch.setattr("restpipe.nodes.client.TAKEOVER_BACKOFF", 60.0)
            pipe.close(Goaway.TAKEOVER, "alpha connected again, from 192.0.2.7")
            async with asyncio.timeout(PATIENCE):
                while client._taken_over < times:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        with pytest.raises(PeerAbsentError, match=r"another node has the identity of this one: .* from 192\.0\.2\.7"):
            await client.pipe_to_server(0)
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.getMessage().partition("again in ")[2] for line in lines] == ["0.05 s", "0.1 s", "0.15 s", "60 s"]
    assert all("two live nodes have the identity 'alpha'" in line.getMessage() for line in lines)
    assert all("from 192.0.2.7" in line.getMessage() for line in lines)


async def test_a_name_that_was_kept_for_long_is_lost_as_if_for_the_first_time(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    monkeypatch.setattr("restpipe.nodes.client.TAKEOVER_BACKOFF", 0.05)
    monkeypatch.setattr("restpipe.nodes.client.TAKEOVER_MEMORY", 0.0)
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        for times in range(1, 4):
            await told(client).until("connect_success", times)
            (await server.pipe_to("alpha", PATIENCE)).close(Goaway.TAKEOVER, "another one came")
        await told(client).until("connect_success", 4)
        assert client._taken_over == 1


async def test_after_an_ordinary_end_it_dials_at_once(identity_files: Path, leak_free: None) -> None:
    loop = asyncio.get_running_loop()
    async with (
        running_server(identity_files) as server,
        running_client(identity_files, server.port, reconnect_min_s=PATIENCE, reconnect_max_s=PATIENCE) as client,
    ):
        await connected(server, client)
        lost_at = loop.time()
        (await server.pipe_to("alpha", 0)).close(Goaway.SHUTDOWN, "restarting")
        await told(client).until("connect_success", 2)
        assert loop.time() - lost_at < PATIENCE / 2


async def test_the_waits_between_attempts_keep_to_the_settings(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    bounds: set[tuple[float, float]] = set()

    def watched(least: float, most: float, state: tenacity.RetryCallState) -> float:
        bounds.add((least, most))
        return back_off(least, most, state)

    monkeypatch.setattr("restpipe.nodes.client.back_off", watched)
    async with running_client(identity_files, free_port(), reconnect_min_s=0.001, reconnect_max_s=0.002) as client:
        async with asyncio.timeout(PATIENCE):
            await told(client).until("connect_fail", 20)
    assert bounds == {(0.001, 0.002)}


async def test_an_attempt_that_fails_of_what_nobody_foresaw_is_logged_and_followed_by_the_next(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    faults = [OSError("No space left on device"), ZeroDivisionError("a bug")]

    async def dial(*arguments: Any, **options: Any) -> Any:
        if faults:
            raise faults.pop(0)
        return await grpc_client.dial(*arguments, **options)

    monkeypatch.setattr("restpipe.nodes.client.dial", dial)
    with caplog.at_level(logging.WARNING, "restpipe"):
        async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
            await connected(server, client)
    shown = [record for record in caplog.records if "cannot connect" in record.message]
    assert [record.exc_info is not None for record in shown] == [True, True]
    assert "No space left on device" in shown[0].message


async def test_the_same_cause_is_logged_loudly_once(
    identity_files: Path, caplog: pytest.LogCaptureFixture, leak_free: None
) -> None:
    with caplog.at_level(logging.WARNING, "restpipe"):
        async with running_client(identity_files, free_port()) as client:
            await told(client).until("connect_fail", 5)
    (record,) = [record for record in caplog.records if "cannot connect" in record.message]
    assert "nothing listens there" in record.message
    assert not record.exc_info


async def test_a_server_that_never_answers_is_given_up_after_the_connect_timeout(
    identity_files: Path, leak_free: None
) -> None:
    async with silent_port() as (port, _), running_client(identity_files, port, connect_timeout_s=0.2) as client:
        await told(client).until("connect_fail", 2)


async def test_it_stops_at_once_while_it_connects(identity_files: Path, leak_free: None) -> None:
    async with silent_port() as (port, came), running_client(identity_files, port, connect_timeout_s=60.0) as client:
        async with asyncio.timeout(PATIENCE):
            await came.wait()
        async with asyncio.timeout(PATIENCE / 2):
            await client.stop(PATIENCE)


async def test_it_stops_at_once_while_it_waits_for_the_next_attempt(identity_files: Path, leak_free: None) -> None:
    async with running_client(identity_files, free_port(), reconnect_min_s=60.0, reconnect_max_s=60.0) as client:
        await told(client).until("connect_fail")
        async with asyncio.timeout(PATIENCE / 2):
            await client.stop(PATIENCE)
        assert own_tasks() == []


async def test_it_stops_at_once_while_it_backs_off_after_a_takeover(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch, leak_free: None
) -> None:
    monkeypatch.setattr("restpipe.nodes.client.TAKEOVER_BACKOFF", 60.0)
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        pipe = await client.pipe_to_server(0)
        (await server.pipe_to("alpha", 0)).close(Goaway.TAKEOVER, "another one came")
        await asyncio.wait({pipe.ended})
        async with asyncio.timeout(PATIENCE / 2):
            await client.stop(PATIENCE)


async def test_stopped_while_connected_it_lets_what_is_in_flight_finish(identity_files: Path, leak_free: None) -> None:
    async with running_server(identity_files) as server, running_client(identity_files, server.port) as client:
        await connected(server, client)
        asking = asyncio.create_task(
            exchange(
                client.pipe_to_server,
                lambda _pipe: Request(verb="post", noun="wait"),
                None,
                Patience(PATIENCE, PATIENCE),
            )
        )
        await server.handler.entered.wait()
        departing = (await server.pipe_to("alpha", 0)).departing
        stopping = asyncio.create_task(client.stop(PATIENCE))
        await asyncio.wait({departing})
        assert not stopping.done()
        with pytest.raises(PeerAbsentError, match="stopping"):
            await client.pipe_to_server(PATIENCE)
        server.handler.release.set()
        assert (await asking)[1] == 1
        async with asyncio.timeout(PATIENCE / 2):
            await stopping


async def test_who_waits_for_the_server_is_answered_when_the_client_stops(
    identity_files: Path, leak_free: None
) -> None:
    async with running_client(identity_files, free_port()) as client:
        waiting = asyncio.create_task(client.pipe_to_server(PATIENCE))
        await told(client).until("connect_fail")
        await client.stop(PATIENCE)
        async with asyncio.timeout(PATIENCE / 2):
            with pytest.raises(PeerAbsentError, match="this node is stopping"):
                await waiting


async def test_stopping_a_node_that_was_never_started_leaves_nothing(identity_files: Path, leak_free: None) -> None:
    await ClientNode(client_settings(identity_files, 1)).stop(PATIENCE)
    assert own_tasks() == []


async def test_a_class_with_the_other_names_of_the_events_is_told_too(identity_files: Path, leak_free: None) -> None:
    async with running_client(identity_files, free_port(), connection_events="test_client_node.OtherNames") as client:
        async with asyncio.timeout(PATIENCE):
            assert await client._events.told.get() == "connection_fail"
            async with running_server(identity_files, bind_port=client.settings.target_port):
                while await client._events.told.get() != "connection_success":
                    pass


class OtherNames:
    """Has the names that the README of RestPipe 0.2 gives."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def connection_success(self, retry_attempts: int, last_disconnected_dt: object) -> None:
        self.told.put_nowait("connection_success")

    async def connection_fail(self, retry_attempts: int, last_disconnected_dt: object) -> None:
        self.told.put_nowait("connection_fail")


@pytest.mark.parametrize(
    ("attempt", "since", "bound"),
    [(1, 0.001, 0.1), (3, 0.05, 0.4), (7, 2.0, 5.0), (2000, 9000.0, 5.0), (1, 0.7, 0.7), (1, 10.0, 5.0)],
)
def test_the_wait_before_the_next_attempt_is_any_up_to_a_bound_that_grows_with_attempts_and_with_time(
    attempt: int, since: float, bound: float
) -> None:
    state = tenacity.RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = attempt
    state.outcome_timestamp = state.start_time + since
    waits = [back_off(0.1, 5.0, state) for _ in range(1000)]
    assert 0 <= min(waits) < bound / 10
    assert 0.9 * bound < max(waits) <= bound
