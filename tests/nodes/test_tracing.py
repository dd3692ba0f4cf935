"""A request is one trace on both nodes, and one name in both logs."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_nodes import asgi_of, connected, running_client, running_server
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from restpipe import ClientEventHandler, EventContext, ServerEventHandler
from restpipe.nodes import tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Told(ClientEventHandler, ServerEventHandler):
    async def get_names(self, ctx: EventContext, post_data: Any) -> dict[str, str]:
        return {"id": ctx.request_id, "traceparent": ctx.traceparent}

    def get_span(self, ctx: EventContext, post_data: Any) -> dict[str, str]:
        context = trace.get_current_span().get_span_context()
        return {"span": f"{context.span_id:016x}", "traceparent": ctx.traceparent}

    async def get_back(self, ctx: EventContext, post_data: Any) -> list[Any]:
        return [ctx.request_id, (await ctx.call("get", "names")).data]

    async def get_failure(self, ctx: EventContext, post_data: Any) -> None:
        raise ValueError("the secret")


HANDLER = {"event_handler": "test_tracing.Told"}


class Spans:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def ended(self) -> list[ReadableSpan]:
        """Return the spans, the outermost first."""
        return list(reversed(self._exporter.get_finished_spans()))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """What the program did to have spans: it has a provider of them, as its own start-up would set one."""
    spans = Spans()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
    yield spans
    spans.provider.shutdown()


async def ask(identity_files: Path, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Ask the client through the server."""
    async with (
        running_server(identity_files, **HANDLER) as server,
        running_client(identity_files, server.port, **HANDLER) as client,
        asgi_of(server) as http,
    ):
        await connected(server, client)
        return await http.get(f"/client/alpha/{path}", headers=headers or {})


async def test_the_callers_id_and_trace_context_reach_the_handler(identity_files: Path) -> None:
    sent = {"X-Request-ID": "order-17", "traceparent": TRACEPARENT}
    answer = await ask(identity_files, "names", sent)
    assert answer.json() == {"id": "order-17", "traceparent": TRACEPARENT}
    answer = await ask(identity_files, "back", sent)
    assert answer.json() == ["order-17", {"id": "order-17", "traceparent": TRACEPARENT}]


async def test_a_request_without_an_id_has_one_name_on_both_nodes(
    identity_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await ask(identity_files, "failure")
    (logged,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert vars(logged)["request_id"]
    assert answer.json()["instance"] == f"urn:restpipe:request:{vars(logged)['request_id']}"
    assert vars(logged)["event"] == "get failure"
    assert vars(logged)["peer"] == "127.0.0.1"


async def test_two_requests_never_have_the_same_name(identity_files: Path) -> None:
    names = {(await ask(identity_files, "names")).json()["id"] for _ in range(2)}
    assert len(names) == 2


async def test_a_refusal_before_any_pipe_tells_the_callers_id_too(identity_files: Path) -> None:
    async with running_server(identity_files) as server, asgi_of(server) as http:
        answer = await http.get("/client/nobody.invalid/time", headers={"X-Request-ID": "order-17", "Prefer": "wait=0"})
        assert answer.json()["instance"] == "urn:restpipe:request:order-17"


async def test_spans_join_the_caller_the_web_server_the_exchange_and_the_handler(
    identity_files: Path, spans: Spans
) -> None:
    answer = await ask(identity_files, "span", {"traceparent": TRACEPARENT})
    door, exchange, served = spans.ended()
    assert [(span.name, span.kind) for span in (door, exchange, served)] == [
        ("GET /client", SpanKind.SERVER),
        ("get span", SpanKind.CLIENT),
        ("get span", SpanKind.SERVER),
    ]
    assert all(
        span.context is not None and f"{span.context.trace_id:032x}" == TRACE for span in (door, exchange, served)
    )
    parents = [f"{span.parent.span_id:016x}" for span in (door, exchange, served) if span.parent is not None]
    ids = [f"{span.context.span_id:016x}" for span in (door, exchange, served) if span.context is not None]
    assert parents == ["00f067aa0ba902b7", *ids[:2]]
    # The handler's own spans, in its thread, and what it calls are in the last one.
    assert answer.json() == {"span": ids[2], "traceparent": f"00-{TRACE}-{ids[2]}-01"}
    assert door.attributes is not None
    assert door.attributes["http.response.status_code"] == 200


async def test_a_span_of_a_failure_tells_its_class_and_nothing_that_the_handler_said(
    identity_files: Path, spans: Spans
) -> None:
    await ask(identity_files, "failure")
    assert [span.status.status_code for span in spans.ended()] == [StatusCode.ERROR] * 3
    assert [span.attributes["error.type"] for span in spans.ended()[1:] if span.attributes] == ["ValueError"] * 2
    assert not any("the secret" in span.to_json() for span in spans.ended())


async def test_without_a_provider_nothing_stands_in_the_way(identity_files: Path) -> None:
    assert tracing.tracing() is None
    async with running_server(identity_files) as server:
        assert server.tracing is None
