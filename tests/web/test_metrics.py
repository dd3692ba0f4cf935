"""`/metrics` tells what the node did and what it is, in bounded many series; without it nothing is counted."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_nodes import PATIENCE, connected, running_client, running_server, web_of
from prometheus_client.parser import text_string_to_metric_families

from restpipe.nodes import metering
from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.pipe import PipeEnd
from restpipe_pb.v1.pipe_pb2 import Goaway

COUNT = "restpipe_exchange_duration_seconds_count"


class Samples:
    """What `/metrics` told."""

    def __init__(self, text: str) -> None:
        self.all = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, /, **labels: str) -> float:
        (value,) = [s.value for s in self.all if s.name == name and labels.items() <= s.labels.items()]
        return value

    def counted(self, side: str) -> dict[tuple[str, str, str], float]:
        return {
            (s.labels["verb"], s.labels["event"], s.labels["outcome"]): s.value
            for s in self.all
            if s.name == COUNT and s.labels["side"] == side
        }


async def asked(http: httpx.AsyncClient) -> Samples:
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Samples(response.text)


class Site:
    """A server with /metrics, a client with it, and the web servers of both."""

    def __init__(self, server: ServerNode, client: ClientNode, at_server: Any, at_client: Any) -> None:
        self.server, self.client, self.at_server, self.at_client = server, client, at_server, at_client


@pytest.fixture
async def site(identity_files: Path) -> Any:
    async with (
        running_server(identity_files, metrics=True, heartbeat_interval_s=0.01) as server,
        running_client(identity_files, server.port, metrics=True) as client,
        web_of(server) as at_server,
        web_of(client) as at_client,
    ):
        await connected(server, client)
        yield Site(server, client, at_server, at_client)


async def test_exchanges_are_counted_where_they_are_opened_and_where_they_are_served(site: Site) -> None:
    for path in ("value", "value", "code", "raise", "nowhere", "typed?number=x"):
        await site.at_client.get(f"/server/{path}")
    expected = {
        ("get", "value", "done"): 2,
        ("get", "code", "done"): 1,
        ("get", "raise", "failed"): 1,
        ("get", "other", "refused"): 1,
        ("get", "typed", "refused"): 1,
    }
    assert (await asked(site.at_client)).counted("opened") == expected
    assert (await asked(site.at_server)).counted("served") == expected


async def test_a_request_that_never_leaves_and_one_that_is_cancelled_are_told_apart(site: Site) -> None:
    asking = asyncio.create_task(site.at_client.get("/server/wait"))
    await site.server.handler.entered.wait()
    assert (await asked(site.at_server)).value("restpipe_exchanges_in_flight") == 1
    asking.cancel()
    await asyncio.wait({asking})
    async with asyncio.timeout(PATIENCE):
        await site.server.handler.cancelled.wait()
    assert (await asked(site.at_server)).counted("served") == {("get", "wait", "cancelled"): 1}
    (pipe,) = site.client.pipes
    await site.server.stop(0)
    await pipe.ended
    await site.at_client.get("/server/value", headers={"Prefer": "wait=0"})
    told = await asked(site.at_client)
    assert told.counted("opened") == {("get", "wait", "cancelled"): 1, ("other", "other", "unsent"): 1}
    assert (told.value("restpipe_pipes"), told.value("restpipe_ready")) == (0, 0)


async def test_no_caller_and_no_peer_can_make_series_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "MAX_EVENTS", 2)
    for path in ("value", "code", "nothing", "cat//x", *(f"no/such/event{i}" for i in range(20))):
        await site.at_client.get(f"/server/{path}")
    for node in (site.at_client, site.at_server):
        told = await asked(node)
        events = {s.labels["event"] for s in told.all if s.name == COUNT}
        assert events == {"value", "code", "other"}


async def test_durations_are_a_histogram_whose_buckets_add_up(site: Site) -> None:
    for _ in range(5):
        await site.at_client.get("/server/value")
    told = await asked(site.at_client)
    buckets = [s.value for s in told.all if s.name == "restpipe_exchange_duration_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == told.value(COUNT) == 5
    assert 0 < told.value("restpipe_exchange_duration_seconds_sum") < 5 * PATIENCE


async def test_the_state_of_pipes_and_certificates_is_read_when_it_is_asked(site: Site) -> None:
    (pipe,) = site.server.pipes
    async with asyncio.timeout(PATIENCE):
        while pipe.round_trip is None:
            await site.at_client.get("/server/value")
    server, client = await asked(site.at_server), await asked(site.at_client)
    assert server.value("restpipe_round_trip_seconds", of_pipes="slowest") > 0
    for told in (server, client):
        assert (told.value("restpipe_pipes"), told.value("restpipe_connections_total")) == (1, 1)
        assert told.value("restpipe_queue_depth") >= 0
        assert told.value("restpipe_repeats_total") == 0
        for certificate in ("node", "ca", "first_of_peers"):
            assert told.value("restpipe_certificate_expires_in_seconds", certificate=certificate) > 86400
    assert server.value("restpipe_info", node="server", name="server") == 1


async def test_what_one_side_sent_the_other_received(site: Site) -> None:
    body = bytes(300_000)
    assert (await site.at_client.post("/server/echo", content=body)).content == body
    for told in (await asked(site.at_client), await asked(site.at_server)):
        for direction in ("sent", "received"):
            assert told.value("restpipe_frame_bytes_total", direction=direction) > len(body)


async def test_a_repeated_request_and_a_connection_anew_are_counted(site: Site) -> None:
    repeated = asyncio.create_task(site.at_client.get("/server/wait"))
    await site.server.handler.entered.wait()
    for lost in site.server.pipes:
        lost.close(Goaway.SHUTDOWN, "cut")
    site.server.handler.release.set()
    response = await repeated
    assert response.headers["x-event-attempts"] == "2"
    told = await asked(site.at_client)
    assert (told.value("restpipe_repeats_total"), told.value("restpipe_connections_total")) == (1, 2)
    assert told.value("restpipe_pipes_ended_total", reason="shutdown") == 1


async def test_a_pipe_that_is_lost_and_attempts_that_fail_are_counted(site: Site) -> None:
    (pipe,) = site.client.pipes
    await site.server.stop(0)
    await asyncio.wait({pipe.ended}, timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while (told := await asked(site.at_client)).value("restpipe_connect_failures_total") < 2:
            pass
    assert sum(s.value for s in told.all if s.name == "restpipe_pipes_ended_total") == 1
    assert told.value("process_resident_memory_bytes") > 1e6


@pytest.mark.parametrize(("number", "name"), [(0, "lost"), (Goaway.TAKEOVER, "takeover"), (77, "lost")])
async def test_pipes_that_ended_are_told_by_reasons_that_there_are(site: Site, number: int, name: str) -> None:
    (pipe,) = site.client.pipes
    pipe._end(PipeEnd(Goaway.Reason.ValueType(number), "over", by_peer=True))
    await asyncio.wait({pipe.ended}, timeout=PATIENCE)
    assert (await asked(site.at_client)).value("restpipe_pipes_ended_total", reason=name) == 1


async def test_the_door_is_before_metrics_and_they_are_off_unless_asked_for(
    identity_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(identity_files) as server, web_of(server) as http:
        assert server.meter.durations is None
        assert (await http.get("/metrics")).status_code == 404
    monkeypatch.setenv("RP_WEB_TOKEN", "s3cret")
    monkeypatch.setenv("RP_METRICS", "1")
    async with running_server(identity_files) as server, web_of(server) as http:
        assert (await http.get("/metrics")).status_code == 401
        shown = {"Authorization": "Bearer s3cret"}
        assert (await http.get("/metrics", headers=shown)).status_code == 200
        assert (await http.get("/metrics", headers=shown | {"Host": "evil.example"})).status_code == 421


async def test_two_nodes_in_a_process_count_for_themselves(site: Site) -> None:
    await site.at_client.get("/server/value")
    assert (await asked(site.at_server)).counted("opened") == {}
    assert (await asked(site.at_client)).counted("served") == {}
