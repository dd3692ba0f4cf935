"""What equal manifests have in common is made once, beside the event loop, and forgotten when it is too much."""

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from fake_peers import peer
from openapi_spec_validator import OpenAPIV31SpecValidator

from restpipe.web import documents
from restpipe.web.documents import Document, Documents
from restpipe.web.openapi import MOST_EVENTS, describe
from restpipe_pb.v1.pipe_pb2 import Event

EVENTS = [Event(verb="get", noun="x", doc="Look.")]


class Made(list[tuple[int, Sequence[Event]]]):
    """The manifests that were described, each with the thread that did it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(documents, "describe", self._note)

    def _note(self, manifest: Sequence[Event], *, token: bool) -> dict[str, Any]:
        self.append((threading.get_ident(), manifest))
        return describe(manifest, token=token)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


async def of(documents: Documents, name: str, events: Sequence[Event] = EVENTS) -> Document:
    return await documents.of(peer(name, events), name, f"/client/{name}")


async def test_peers_that_serve_the_same_share_what_is_made_of_it(made: Made) -> None:
    made_of = Documents(token=False)
    alpha, beta = await asyncio.gather(of(made_of, "alpha"), of(made_of, "beta"))
    assert len(made) == 1
    first, second = json.loads(alpha.body), json.loads(beta.body)
    assert OpenAPIV31SpecValidator(first).is_valid()
    assert (first["info"]["title"], second["info"]["title"]) == ("alpha", "beta")
    assert (first["servers"], second["servers"]) == ([{"url": "/client/alpha"}], [{"url": "/client/beta"}])
    assert first["paths"] == second["paths"]
    assert alpha.etag != beta.etag
    assert (await of(made_of, "alpha")).etag == alpha.etag


async def test_peers_that_serve_other_events_have_other_documents(made: Made) -> None:
    made_of = Documents(token=False)
    alpha = await of(made_of, "alpha")
    other = await of(made_of, "alpha", [Event(verb="get", noun="x", doc="Listen.")])
    assert len(made) == 2
    assert alpha.etag != other.etag


async def test_the_event_loop_goes_on_while_a_document_is_made(made: Made) -> None:
    await of(Documents(token=False), "alpha")
    assert made[0][0] != threading.get_ident()


async def test_what_was_asked_for_longest_ago_is_forgotten_first(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made_of = Documents(token=False)
    manifests = [[Event(verb="get", noun=f"x{i}")] for i in range(3)]
    size = len((await of(made_of, "alpha", manifests[0])).body)
    monkeypatch.setattr(documents, "_MEMORY", 2 * size)
    await of(made_of, "alpha", manifests[1])
    await of(made_of, "alpha", manifests[0])
    await of(made_of, "alpha", manifests[2])  # for which 1 has to go
    assert len(made) == 3
    await of(made_of, "alpha", manifests[0])
    assert len(made) == 3
    await of(made_of, "alpha", manifests[1])
    assert len(made) == 4


async def test_one_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made_of = Documents(token=False)
    with monkeypatch.context() as broken:
        broken.setattr(documents, "describe", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await of(made_of, "alpha")
    assert json.loads((await of(made_of, "alpha")).body)["paths"]


async def test_a_caller_that_goes_away_takes_it_from_no_other(made: Made) -> None:
    made_of = Documents(token=False)
    first, second = asyncio.create_task(of(made_of, "alpha")), asyncio.create_task(of(made_of, "beta"))
    await asyncio.sleep(0)  # both have begun
    first.cancel()
    assert (await second).body
    assert first.cancelled()
    assert len(made) == 1


async def test_what_is_left_out_of_a_document_is_told() -> None:
    events = [Event(verb="get", noun=f"x{i}") for i in range(MOST_EVENTS + 1)]
    info = json.loads((await of(Documents(token=False), "alpha", events)).body)["info"]
    assert f"Of its {len(events)} events, the first {MOST_EVENTS} are shown." in info["description"]
