"""Who may call what: decided by the name of the caller's certificate, before anything of the request is read."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joined import joined

from restpipe import ClientEventHandler, allow
from restpipe.exceptions import ForbiddenError, WrongVerbError
from restpipe.handlers.events import EventTable
from restpipe.handlers.files import FileServer, WritableFileServer
from restpipe.identity.names import NamePatterns

CALLER = "client"


@allow("nobody-*")
class Closed(ClientEventHandler):
    """Its class is for others than the caller, some of its methods are for the caller."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def get_default(self, ctx: Any, post_data: Any) -> str:
        return self._run("get_default")

    @allow("other", "cl[i]ent")
    async def get_open(self, ctx: Any, post_data: Any) -> str:
        return self._run("get_open")

    @allow("Client", "client-1", "clien")
    def post_shut(self, ctx: Any, post_data: Any) -> str:
        return self._run("post_shut")

    @allow("other")
    async def put_stream(self, ctx: Any, body: AsyncIterator[bytes]) -> str:
        return self._run("put_stream")

    @allow("other")
    async def get_mine(self, ctx: Any, post_data: Any) -> str:
        return self._run("get_mine")

    @allow("client")
    async def head_mine(self, ctx: Any, post_data: Any) -> None:
        self._run("head_mine")

    def _run(self, name: str) -> str:
        self.ran.append(name)
        return name


class Derived(Closed):
    """Overrides a method without saying anew whom it is for, and adds one."""

    async def get_open(self, ctx: Any, post_data: Any) -> str:
        return self._run("get_open")

    async def get_added(self, ctx: Any, post_data: Any) -> str:
        return self._run("get_added")


@allow("*")
class Reopened(Closed):
    """Has a class rule of its own; the rules of the methods it inherits stay."""

    def post_shut(self, ctx: Any, post_data: Any) -> str:
        return self._run("post_shut")


@pytest.mark.parametrize("handler", [Closed(), Derived()], ids=["Closed", "Derived"])
async def test_a_method_is_for_those_that_it_names_and_otherwise_for_those_of_its_class(handler: Closed) -> None:
    async with joined(handler) as nodes:
        assert (await nodes.get("open")).data == "get_open"
        for noun in ("default", "added") if isinstance(handler, Derived) else ("default",):
            with pytest.raises(ForbiddenError, match=rf"^get {noun} is not for 'client'$") as refused:
                await nodes.get(noun)
            assert (refused.value.status, refused.value.return_code, refused.value.executed) == (403, 253, "no")
    assert handler.ran == ["get_open"]


async def test_a_method_that_overrides_a_restricted_one_is_restricted_likewise() -> None:
    handler = Reopened()
    async with joined(handler) as nodes:
        assert (await nodes.get("default")).data == "get_default"
        with pytest.raises(ForbiddenError):
            await nodes.call("post", "shut")
    assert handler.ran == ["get_default"]


async def test_names_are_compared_whole_and_upper_case_is_another_name() -> None:
    handler = Closed()
    async with joined(handler) as nodes:
        with pytest.raises(ForbiddenError):
            await nodes.call("post", "shut")
    assert handler.ran == []


async def test_nothing_of_the_body_of_a_refused_call_is_read() -> None:
    handler = Closed()
    taken = []

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            taken.append(1)
            yield bytes(16384)

    async with joined(handler) as nodes:
        with pytest.raises(ForbiddenError):
            await nodes.call("put", "stream", pieces=pieces())
        # No more than the window that a sender may fill unasked, and what is on its way.
        assert len(taken) * 16384 <= 2**20
    assert handler.ran == []


async def test_head_obeys_the_rule_of_the_method_that_serves_it() -> None:
    handler = Closed()
    async with joined(handler) as nodes:
        await nodes.call("head", "open")
        await nodes.call("head", "mine")
        for verb, noun in (("head", "default"), ("get", "mine")):
            with pytest.raises(ForbiddenError):
                await nodes.call(verb, noun)
    assert handler.ran == ["get_open", "head_mine"]


async def test_a_restricted_noun_is_told_from_one_that_is_not_there() -> None:
    async with joined(Closed()) as nodes:
        with pytest.raises(WrongVerbError):
            await nodes.call("delete", "default")


async def test_a_file_server_of_ones_own_has_its_rules(tmp_path: Path) -> None:
    @allow("*")
    class Files(WritableFileServer):
        @allow("admin")
        async def put_files(self, ctx: Any, body: Any, *path: str) -> Any:
            raise AssertionError("it ran")

        @allow("admin")
        def delete_files(self, ctx: Any, post_data: Any, *path: str) -> Any:
            raise AssertionError("it ran")

    (tmp_path / "a").write_text("of a")
    async with joined(Files(tmp_path)) as nodes:
        assert (await nodes.get("files", "a")).body == b"of a"
        for verb in ("put", "delete"):
            with pytest.raises(ForbiddenError):
                await nodes.call(verb, "files", "a")
    assert (tmp_path / "a").read_text() == "of a"


def test_what_the_handlers_have_no_rule_for_is_under_that_of_the_node(tmp_path: Path) -> None:
    class Open(ClientEventHandler):
        async def get_open(self, ctx: Any, post_data: Any) -> None: ...

        @allow("office")
        async def get_own(self, ctx: Any, post_data: Any) -> None: ...

    table = EventTable(Open(), FileServer(tmp_path))

    def rules() -> dict[str, list[str]]:
        return {event.noun: list(event.allow) for event in table.manifest}

    assert rules() == {"open": [], "own": ["office"], "files": []}
    table.restrict(NamePatterns(["shop-*"]))
    assert rules() == {"open": ["shop-*"], "own": ["office"], "files": ["shop-*"]}
    table.restrict(None)
    assert rules() == {"open": [], "own": ["office"], "files": []}


def test_the_manifest_says_whom_each_event_is_for() -> None:
    table = EventTable(Closed())
    assert {(event.verb, event.noun): list(event.allow) for event in table.manifest} == {
        ("get", "default"): ["nobody-*"],
        ("get", "open"): ["other", "cl[i]ent"],
        ("post", "shut"): ["Client", "client-1", "clien"],
        ("put", "stream"): ["other"],
        ("get", "mine"): ["other"],
        ("head", "mine"): ["client"],
    }


@pytest.mark.parametrize("patterns", [(), ("",), (len,)])
def test_a_rule_without_a_name_is_refused_where_it_is_written(patterns: Any) -> None:
    with pytest.raises(ValueError, match="should be one or more names"):
        allow(*patterns)
