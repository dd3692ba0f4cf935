"""A server passes requests of one client on to another where its operator permits that, and as any exchange goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_handlers import ClientEvents
from live_nodes import PATIENCE, client_settings, connected, running_client, running_server, web_of

from restpipe import allow
from restpipe.exceptions import ForbiddenError, PeerRefusedError, PipeLostError
from restpipe.nodes import relay
from restpipe.nodes.client import ClientNode
from restpipe.nodes.registry import Registry
from restpipe.nodes.relay import PassedKeys
from restpipe.nodes.server import ServerNode
from restpipe.pipe import Pipe
from restpipe_pb.v1.pipe_pb2 import Caller, Goaway, Request

PIECE = bytes(16 * 1024)
# What may be on its way from end to end: the windows and the queues of two pipes.
ON_ITS_WAY = 1024 * 1024


class FarEvents(ClientEvents):
    """What the client serves that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.yielded = 0
        self.taken = 0

    @allow("beta")
    async def get_guarded(self, ctx: Any, post_data: Any) -> str:
        return "open to beta"

    @allow("127.0.0.1")
    async def get_servers(self, ctx: Any, post_data: Any) -> str:
        return "open to the server"

    async def get_back(self, ctx: Any, post_data: Any) -> Any:
        return (await ctx.call("get", "caller")).data

    async def get_flood(self, ctx: Any, post_data: Any) -> AsyncIterator[bytes]:
        while True:
            self.yielded += len(PIECE)
            yield PIECE

    async def post_slow(self, ctx: Any, body: AsyncIterator[bytes]) -> int:
        self.entered.set()
        await self.release.wait()
        async for piece in body:
            self.taken += len(piece)
        return self.taken


@dataclass
class Three:
    """A server, the client "alpha" that is called, and the client "beta" that calls."""

    server: ServerNode
    far: ClientNode
    near: ClientNode
    http: httpx.AsyncClient

    @property
    def handler(self) -> FarEvents:
        handler: FarEvents = self.far.handler
        return handler

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(f"/client/alpha/{path}", **options)

    async def entered(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.handler.entered.wait()
        self.handler.entered.clear()


@contextlib.asynccontextmanager
async def far_client(identity_files: Path, port: int, **changed: Any) -> AsyncIterator[ClientNode]:
    node = ClientNode(client_settings(identity_files, port, **changed), FarEvents())
    await node.start()
    try:
        yield node
    finally:
        await node.stop(0)


@contextlib.asynccontextmanager
async def three(identity_files: Path, *rules: str, **changed: Any) -> AsyncIterator[Three]:
    async with (
        running_server(identity_files, relay=rules, **changed) as server,
        far_client(identity_files, server.port) as far,
        running_client(identity_files, server.port, "beta") as near,
        web_of(near) as http,
    ):
        await connected(server, far)
        await connected(server, near)
        yield Three(server, far, near, http)


async def cut(node: ClientNode) -> None:
    (pipe,) = node.pipes
    await pipe._carrier.close()
    await asyncio.wait({pipe.ended})


def outcome(response: httpx.Response) -> tuple[int, str, str]:
    return response.status_code, response.headers["x-event-return-code"], response.json()["executed"]


# Who may reach whom.


async def test_without_a_policy_no_client_reaches_another_and_the_answer_says_who_can_change_that(
    identity_files: Path, leak_free: None
) -> None:
    async with three(identity_files) as nodes:
        response = await nodes.get("value")
        assert outcome(response) == (403, "253", "no")
        assert "RP_RELAY there says who may reach whom, such as beta>alpha" in response.json()["detail"]


async def test_a_rule_is_for_one_direction_and_for_the_names_that_it_means(identity_files: Path) -> None:
    async with three(identity_files, "b*>alpha") as nodes, web_of(nodes.far) as other_way:
        assert (await nodes.get("value")).json() == {"value": 1}
        assert outcome(await other_way.get("/client/beta/value")) == (403, "253", "no")


async def test_who_may_not_reach_a_client_does_not_learn_whether_there_is_one(identity_files: Path) -> None:
    async with three(identity_files, "beta>printer-*") as nodes:
        said = set()
        for name in ("alpha", "omega", "192.0.2.7"):
            answer = await nodes.http.get(f"/client/{name}/value")
            assert outcome(answer) == (403, "253", "no")
            said.add(answer.json()["detail"].replace(name, "NAME"))
        assert len(said) == 1


async def test_by_its_address_a_client_is_reached_as_if_there_were_only_those_that_are_permitted(
    identity_files: Path,
) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        assert (await nodes.http.get("/client/127.0.0.1/caller")).json()["caller"] == "beta"
    async with three(identity_files, "beta>alpha", "beta>beta") as nodes:
        response = await nodes.http.get("/client/127.0.0.1/value")
        assert outcome(response) == (409, "254", "no")
        assert "alpha, beta" in response.json()["detail"]


async def test_names_are_answered_for_as_on_the_server(identity_files: Path) -> None:
    async with three(identity_files, "beta>*") as nodes:
        never = {"Prefer": "wait=0"}
        assert outcome(await nodes.http.get("/client/nobody/value", headers=never)) == (404, "254", "no")
        assert outcome(await nodes.http.get("/client//value")) == (404, "255", "no")
        await nodes.far.stop(0)
        gone = await nodes.get("value", headers=never)
        assert outcome(gone) == (503, "245", "no")
        assert gone.headers["retry-after"] == "1"


async def test_a_client_that_is_not_there_is_waited_for_as_the_caller_asks(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []
    asked = asyncio.Event()

    async def find(registry: Registry, target: str, wait: float, permits: Any) -> Pipe:
        waits.append(wait)
        asked.set()
        return await find_as_ever(registry, target, wait, permits)

    find_as_ever = Registry.permitted_pipe_to
    monkeypatch.setattr(Registry, "permitted_pipe_to", find)
    async with three(identity_files, "beta>alpha") as nodes:
        await nodes.far.stop(0)
        asked.clear()
        asking = asyncio.create_task(nodes.get("value", headers={"Prefer": "wait=9"}))
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        async with far_client(identity_files, nodes.server.port):
            assert (await asking).json() == {"value": 1}
    assert 0 < waits[-1] <= 9


async def test_who_waits_for_a_client_when_the_server_leaves_is_answered_by_the_next_server(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def find(registry: Registry, *given: Any) -> Pipe:
        asked.set()
        return await find_as_ever(registry, *given)

    find_as_ever = Registry.permitted_pipe_to
    monkeypatch.setattr(Registry, "permitted_pipe_to", find)
    async with (
        running_server(identity_files, relay=("beta>alpha",)) as server,
        running_client(identity_files, server.port, "beta") as near,
        web_of(near) as http,
    ):
        await connected(server, near)
        asked.clear()
        asking = asyncio.create_task(http.get("/client/alpha/value"))
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        await server.stop(PATIENCE)
        async with (
            running_server(identity_files, relay=("beta>alpha",), bind_port=server.port) as successor,
            far_client(identity_files, successor.port),
        ):
            assert (await asking).json() == {"value": 1}


async def test_when_the_time_is_too_short_for_the_wait_it_is_known_that_nothing_was_sent(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "WAITING_SHARE", 0.05)  # much time for the answer, on a busy machine too
    async with three(identity_files, "beta>alpha") as nodes:
        await nodes.far.stop(0)
        response = await nodes.get("value", headers={"X-Event-Timeout": "10"})
        assert outcome(response) == (503, "245", "no")


# Who the caller is.


async def test_the_caller_is_the_client_that_asked_wherever_that_matters(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes, web_of(nodes.server) as of_server:
        assert (await nodes.get("caller")).json()["caller"] == "beta"
        assert (await nodes.get("guarded")).json() == "open to beta"
        assert outcome(await nodes.get("servers")) == (403, "253", "no")
        assert outcome(await of_server.get("/client/alpha/guarded")) == (403, "253", "no")
        assert (await of_server.get("/client/alpha/servers")).json() == "open to the server"


async def test_what_a_client_says_of_its_own_name_is_ignored(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        pipe = await nodes.near.pipe_to_server(0)
        for to in ("", "alpha"):
            forged = Request(verb="get", noun="caller", timeout_ms=10_000, to=to, caller=Caller(name="admin"))
            answer = await pipe.call(forged)
            assert b'"caller": "beta"' in await answer.body.read(10_000)
        refused = Request(verb="get", noun="caller", timeout_ms=10_000, to="beta", caller=Caller(name="alpha"))
        with pytest.raises(ForbiddenError):
            await pipe.call(refused)


@pytest.mark.parametrize("name", ["", "127.0.0.1"])
async def test_a_client_that_has_the_name_of_the_server_cannot_pass_for_it(identity_files: Path, name: str) -> None:
    async with three(identity_files) as nodes:
        pipe = await nodes.server.pipe_to("alpha", 0)
        passed = Request(verb="get", noun="servers", timeout_ms=10_000, caller=Caller(name=name, address="192.0.2.1"))
        with pytest.raises(ForbiddenError, match="could not be told from the server"):
            await pipe.call(passed)


@pytest.mark.parametrize(
    ("name", "address"), [("*", "192.0.2.1"), ("beta\r\n", "192.0.2.1"), ("beta", "192.0.2.1\r\nX: y")]
)
async def test_who_passes_requests_on_cannot_name_a_caller_that_no_node_is(
    identity_files: Path, name: str, address: str
) -> None:
    async with three(identity_files) as nodes:
        pipe = await nodes.server.pipe_to("alpha", 0)
        passed = Request(verb="get", noun="caller", timeout_ms=10_000, caller=Caller(name=name, address=address))
        with pytest.raises(ForbiddenError, match="no node has the name"):
            await pipe.call(passed)


async def test_a_key_belongs_to_the_client_that_used_it(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes, web_of(nodes.server) as of_server:
        options: dict[str, Any] = {"headers": {"Idempotency-Key": "k"}, "content": b"paid"}
        for http in (nodes.http, of_server, nodes.http):
            assert (await http.post("/client/alpha/echo", **options)).content == b"paid"
        assert nodes.handler.runs["post echo"] == 2


async def test_the_caller_is_called_back_where_the_policy_permits_that_way_too(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha", "alpha>beta") as nodes:
        assert (await nodes.get("back")).json()["caller"] == "alpha"
    async with three(identity_files, "beta>alpha") as nodes:
        response = await nodes.get("back")
        assert outcome(response) == (500, "251", "yes")
        assert response.json()["exception"]["class"] == "ForbiddenError"
        assert "does not permit 'alpha' to reach 'beta'" in response.json()["detail"]


# Peers of before.


async def test_a_server_that_passes_nothing_on_is_told_apart_from_one_that_does_not_permit_it(
    identity_files: Path,
) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        (await nodes.near.pipe_to_server(0)).relays = ""
        response = await nodes.get("value")
        assert outcome(response) == (501, "245", "no")
        assert "the server's software is too old" in response.json()["detail"]


async def test_a_client_that_would_take_the_caller_for_the_server_is_not_called(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        (await nodes.server.pipe_to("alpha", 0)).knows_callers = False
        response = await nodes.get("value")
        assert outcome(response) == (501, "245", "no")
        assert "the software of 'alpha'" in response.json()["detail"]
        assert nodes.handler.runs.total() == 0


# Lost pipes.


@pytest.mark.parametrize("lost", ["near", "far"])
@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE"])
async def test_what_may_be_repeated_is_whichever_pipe_is_lost(identity_files: Path, lost: str, verb: str) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.http.request(verb, "/client/alpha/wait"))
        await nodes.entered()
        await cut(getattr(nodes, lost))
        await nodes.entered()
        nodes.handler.release.set()
        response = await asking
        assert (response.status_code, response.headers["x-event-attempts"]) == (200, "2")


@pytest.mark.parametrize("lost", ["near", "far"])
@pytest.mark.parametrize(("verb", "noun"), [("POST", "wait"), ("GET", "once"), ("PUT", "once_more")])
async def test_what_may_not_be_repeated_is_502_outcome_unknown_whichever_pipe_is_lost(
    identity_files: Path, lost: str, verb: str, noun: str
) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.http.request(verb, f"/client/alpha/{noun}"))
        await nodes.entered()
        await cut(getattr(nodes, lost))
        response = await asking
        assert outcome(response) == (502, "246", "unknown")
        assert nodes.handler.runs.total() == 1


@pytest.mark.parametrize("size", [10, 40_000])
async def test_a_body_is_sent_again_by_whichever_node_lost_its_pipe(identity_files: Path, size: int) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.http.put("/client/alpha/wait", content=bytes(size)))
        await nodes.entered()
        await cut(nodes.far)
        await nodes.entered()
        await cut(nodes.near)
        await nodes.entered()
        nodes.handler.release.set()
        response = await asking
        assert (response.status_code, response.headers["x-event-attempts"]) == (200, "3")


async def test_every_execution_is_counted_whichever_pipes_are_lost_in_between(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.get("wait"))
        for lost in (nodes.far, nodes.far, nodes.near, nodes.far, nodes.near):
            await nodes.entered()
            await cut(lost)
        await nodes.entered()
        nodes.handler.release.set()
        response = await asking
        assert (response.status_code, response.headers["x-event-attempts"]) == (200, "6")
        assert nodes.handler.runs["get wait"] == 6


async def test_a_repeat_waits_for_its_client_as_long_as_the_first_attempt_might(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.get("wait", headers={"Prefer": "wait=1"}))
        await nodes.entered()
        await asyncio.sleep(1)  # that the handler takes: nothing waits for a client meanwhile
        await cut(nodes.far)
        await nodes.entered()
        nodes.handler.release.set()
        assert (await asking).status_code == 200


@pytest.mark.parametrize("lost", ["near", "far"])
async def test_a_request_with_a_key_is_executed_once_and_answered_whichever_pipe_is_lost(
    identity_files: Path, lost: str
) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.http.post("/client/alpha/wait", headers={"Idempotency-Key": "k"}))
        await nodes.entered()
        await cut(getattr(nodes, lost))
        await connected(nodes.server, getattr(nodes, lost))
        nodes.handler.release.set()
        response = await asking
        assert (response.json(), response.headers["x-event-attempts"]) == ({"waited": "post"}, "2")
        assert nodes.handler.runs.total() == 1


async def test_a_request_with_a_key_is_not_repeated_to_a_client_that_was_started_anew(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.http.post("/client/alpha/wait", headers={"Idempotency-Key": "k"}))
        await nodes.entered()
        async with far_client(identity_files, nodes.server.port) as anew:
            # It took over: what the server had in flight to the first one is lost.
            response = await asking
            assert outcome(response) == (502, "246", "unknown")
            assert response.headers["x-event-attempts"] == "2"
            assert anew.handler.runs.total() == 0


async def test_a_repeat_with_a_key_is_not_passed_on_to_another_process_than_the_first_was(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        pipe = await nodes.near.pipe_to_server(0)

        def pay(*, repeated: bool) -> Request:
            return Request(
                verb="post", noun="echo", timeout_ms=60_000, to="alpha", idempotency_key="k", repeated=repeated
            )

        assert (await pipe.call(pay(repeated=True))).response.status == 200  # the first never came as far as the server
        assert (await pipe.call(pay(repeated=True))).response.status == 200
        assert nodes.handler.runs["post echo"] == 1
        await nodes.far.stop(0)
        async with far_client(identity_files, nodes.server.port) as anew:
            await connected(nodes.server, anew)
            with pytest.raises(PipeLostError, match="may not get it again"):
                await pipe.call(pay(repeated=True))
            assert anew.handler.runs.total() == 0
            # What is no repeat of RestPipe's own is the caller's decision.
            assert (await pipe.call(pay(repeated=False))).response.status == 200


# Streams.


async def settled(nodes: Three, figure: Callable[[], int]) -> int:
    """Return a figure once it stands still while others are served by the same pipes."""
    before = -1
    async with asyncio.timeout(6 * PATIENCE):
        while before != figure():
            before = figure()
            for _ in range(20):
                assert (await nodes.get("value")).status_code == 200
    return before


async def test_a_reader_that_pauses_stops_the_sender_at_the_other_end_and_nobody_else(
    identity_files: Path, leak_free: None
) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        pipe = await nodes.near.pipe_to_server(0)
        answer = await pipe.call(Request(verb="get", noun="flood", timeout_ms=60_000, to="alpha"))
        first = await settled(nodes, lambda: nodes.handler.yielded)
        assert 0 < first <= ON_ITS_WAY
        taken = 0
        async for piece in answer.body:
            taken += len(piece)
            if taken > 4 * ON_ITS_WAY:
                break
        # The windows have grown by what was read so fast; they do not grow without end.
        assert await settled(nodes, lambda: nodes.handler.yielded) <= taken + 16 * ON_ITS_WAY
        answer.close()


async def test_one_caller_takes_no_more_than_half_of_the_places_that_a_client_has(identity_files: Path) -> None:
    async with (
        running_server(identity_files, relay=("beta>alpha",)) as server,
        far_client(identity_files, server.port, max_exchanges=2) as far,
        running_client(identity_files, server.port, "beta") as near,
        web_of(near) as http,
        web_of(server) as of_server,
    ):
        await connected(server, far)
        await connected(server, near)
        waiting = asyncio.create_task(http.get("/client/alpha/wait"))
        async with asyncio.timeout(PATIENCE):
            await far.handler.entered.wait()
        refused = await http.get("/client/alpha/value")
        assert outcome(refused) == (503, "249", "no")
        assert "1 exchanges of 'beta' with 'alpha' are in flight, its share" in refused.json()["detail"]
        assert (await of_server.get("/client/alpha/value")).json() == {"value": 1}
        far.handler.release.set()
        assert (await waiting).status_code == 200
        assert (await http.get("/client/alpha/value")).json() == {"value": 1}


async def test_a_handler_that_does_not_read_stops_the_caller_that_sends(identity_files: Path, leak_free: None) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 4 * ON_ITS_WAY:
            sent += len(PIECE)
            yield PIECE

    async with three(identity_files, "beta>alpha") as nodes:
        pipe = await nodes.near.pipe_to_server(0)
        request = Request(verb="post", noun="slow", timeout_ms=60_000, to="alpha")
        asking = asyncio.create_task(pipe.call(request, pieces()))
        await nodes.entered()
        assert 0 < await settled(nodes, lambda: sent) <= ON_ITS_WAY
        nodes.handler.release.set()
        assert await (await asking).body.read(100) == b"%d" % (4 * ON_ITS_WAY)


# What changes while it runs.


async def test_a_policy_that_is_taken_back_cuts_what_is_under_way_and_refuses_what_comes(
    identity_files: Path, leak_free: None
) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.get("wait"))
        await nodes.entered()
        nodes.server.reload(lambda: nodes.server.settings.model_copy(update={"relay": ("beta>omega",)}))
        assert outcome(await asking) == (502, "246", "unknown")
        async with asyncio.timeout(PATIENCE):
            await nodes.handler.cancelled.wait()
        assert outcome(await nodes.get("value")) == (403, "253", "no")
        nodes.server.reload(lambda: nodes.server.settings.model_copy(update={"relay": ("beta>*",)}))
        assert (await nodes.get("value")).json() == {"value": 1}


async def test_a_policy_that_changes_and_still_permits_it_lets_what_is_under_way_go_on(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        asking = asyncio.create_task(nodes.get("wait"))
        await nodes.entered()
        nodes.server.reload(lambda: nodes.server.settings.model_copy(update={"relay": ("beta>a*",)}))
        nodes.handler.release.set()
        assert (await asking).status_code == 200


async def test_clients_that_the_settings_name_are_waited_for_before_they_ever_came(identity_files: Path) -> None:
    async with (
        running_server(identity_files, relay=("beta>alpha",), connection_wait_timeout_s=0.0) as server,
        web_of(server) as http,
    ):

        async def known() -> list[str]:
            answers = [(name, await http.get(f"/client/{name}/x")) for name in ("alpha", "beta", "gamma", "delta")]
            return [name for name, answer in answers if outcome(answer) == (503, "245", "no")]

        assert await known() == ["alpha", "beta"]
        changed = {"relay": ("beta>*", "*>gamma"), "allowed_clients": ("alph?", "gamma", "delta")}
        server.reload(lambda: server.settings.model_copy(update=changed))
        assert await known() == ["gamma", "delta"]


async def test_whom_a_client_serves_can_change_while_it_runs(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes, web_of(nodes.server) as of_server:
        nodes.far.reload(lambda: nodes.far.settings.model_copy(update={"allow": ("beta",)}))
        assert outcome(await of_server.get("/client/alpha/value")) == (403, "253", "no")
        assert (await of_server.get("/client/alpha/servers")).status_code == 200
        assert (await nodes.get("value")).status_code == 200
        nodes.far.reload(lambda: nodes.far.settings.model_copy(update={"allow": ("*",)}))
        assert (await of_server.get("/client/alpha/value")).status_code == 200


async def test_what_a_caller_has_under_way_is_cut_once_a_node_does_not_serve_him_any_more(
    identity_files: Path, leak_free: None
) -> None:
    async with three(identity_files, "beta>alpha") as nodes, web_of(nodes.server) as of_server:
        theirs = asyncio.create_task(nodes.get("wait"))
        await nodes.entered()
        cut_off = asyncio.create_task(of_server.get("/client/alpha/wait"))
        await nodes.entered()
        # What the server passes on is not for itself.
        nodes.server.reload(lambda: nodes.server.settings.model_copy(update={"allow": ("nobody",)}))
        nodes.far.reload(lambda: nodes.far.settings.model_copy(update={"allow": ("beta",)}))
        answer = await cut_off
        assert outcome(answer) == (502, "246", "unknown")
        assert answer.json()["detail"].startswith("get wait is not for '127.0.0.1' any longer")
        async with asyncio.timeout(PATIENCE):
            await nodes.handler.cancelled.wait()
        nodes.handler.release.set()
        assert (await theirs).json() == {"waited": "get"}


async def test_an_application_serves_nobody_any_longer_who_is_not_allowed(
    identity_files: Path, leak_free: None
) -> None:
    entered, over = asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        entered.set()
        try:
            await receive()  # for ever, or until nobody waits
        finally:
            over.set()

    async with (
        running_server(identity_files) as server,
        web_of(server) as http,
        contextlib.AsyncExitStack() as ending,
    ):
        node = ClientNode(client_settings(identity_files, server.port), application=application)
        await node.start()
        ending.push_async_callback(node.stop, 0)
        await connected(server, node)
        asking = asyncio.create_task(http.get("/client/alpha/anything"))
        async with asyncio.timeout(PATIENCE):
            await entered.wait()
        node.reload(lambda: node.settings.model_copy(update={"allow": ("beta",)}))
        assert outcome(await asking) == (502, "246", "unknown")
        async with asyncio.timeout(PATIENCE):
            await over.wait()


async def test_a_client_that_is_not_allowed_any_more_is_cut_and_comes_back_when_it_is(identity_files: Path) -> None:
    async with three(identity_files, "beta>alpha") as nodes:
        (pipe,) = nodes.far.pipes
        nodes.server.reload(lambda: nodes.server.settings.model_copy(update={"allowed_clients": ("beta",)}))
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({pipe.ended})
        assert pipe.ended.result().reason == Goaway.FORBIDDEN
        assert outcome(await nodes.get("value", headers={"Prefer": "wait=0"})) == (503, "245", "no")
        nodes.server.reload(lambda: nodes.server.settings.model_copy(update={"allowed_clients": ("*",)}))
        assert (await nodes.get("value")).json() == {"value": 1}


# What is remembered of keys.


def test_a_key_may_go_again_where_it_went_and_nowhere_else() -> None:
    keys = PassedKeys(10)
    assert keys.passed_to_none_but("k", "memory")
    keys.note("k", "memory", 0.0, 10.0)
    assert keys.passed_to_none_but("k", "memory")
    assert not keys.passed_to_none_but("k", "another")
    keys.note("k", "another", 1.0, 11.0)
    assert not keys.passed_to_none_but("k", "memory")
    assert not keys.passed_to_none_but("k", "another")


def test_a_key_that_went_where_nothing_is_remembered_may_not_go_again() -> None:
    keys = PassedKeys(10)
    keys.note("k", "", 0.0, 10.0)
    assert not keys.passed_to_none_but("k", "")


def test_keys_are_forgotten_when_the_time_of_their_last_request_is_over_and_no_sooner() -> None:
    keys = PassedKeys(2)
    keys.note("long", "memory", 0.0, 10.0)
    keys.note("long", "memory", 1.0, 30.0)
    keys.note("short", "memory", 2.0, 12.0)
    with pytest.raises(PeerRefusedError, match="2 requests with an Idempotency-Key"):
        keys.note("third", "memory", 11.0, 40.0)
    keys.note("third", "memory", 12.0, 40.0)
    assert not keys.passed_to_none_but("long", "another")
    assert keys.passed_to_none_but("short", "another")
