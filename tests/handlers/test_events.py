"""Events are found by verb and noun, and nothing of a handler but its event methods is."""

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from restpipe.exceptions import ConfigError, NoHandlerError, WrongVerbError
from restpipe.handlers.base import ClientEventHandler, EventHandler, ServerEventHandler, at_most_once
from restpipe.handlers.events import EventTable


class Handler(ServerEventHandler):
    attribute = "a secret"
    get_attribute = "a secret"

    def __init__(self) -> None:
        self.get_instance = lambda ctx, post_data: "a secret"

    async def get_time(self, ctx: Any, post_data: Any) -> str:
        """Tell the time.

        In the usual way.
        """
        return "get_time"

    def get_time_utc(self, ctx: Any, post_data: Any) -> str:
        return "get_time_utc"

    @at_most_once
    async def put_time(self, ctx: Any, post_data: Any, seconds: float) -> str:
        return "put_time"

    async def post_only(self, ctx: Any, post_data: Any) -> str:
        return "post_only"

    async def head_only(self, ctx: Any, post_data: Any) -> str:
        return "head_only"

    async def get_both(self, ctx: Any, post_data: Any) -> str:
        return "get_both"

    async def head_both(self, ctx: Any, post_data: Any) -> str:
        return "head_both"

    async def _private(self, ctx: Any, post_data: Any) -> str:
        return "a secret"

    async def _get_private(self, ctx: Any, post_data: Any) -> str:
        return "a secret"

    async def get(self, ctx: Any, post_data: Any) -> str:
        return "a secret"

    async def get_(self, ctx: Any, post_data: Any) -> str:
        return "a secret"

    async def getaway(self, ctx: Any, post_data: Any) -> str:
        return "a secret"

    async def options_time(self, ctx: Any, post_data: Any) -> str:
        return "a secret"

    async def GET_upper(self, ctx: Any, post_data: Any) -> str:  # noqa: N802
        return "a secret"

    @staticmethod
    def get_static(ctx: Any, post_data: Any, x: Any = None) -> str:
        return "a secret"

    @classmethod
    def get_class(cls, ctx: Any, post_data: Any) -> str:
        return "a secret"

    @property
    def get_property(self) -> Callable[..., str]:
        raise AssertionError("a property was evaluated")

    @functools.cached_property
    def get_cached(self) -> Callable[..., str]:
        raise AssertionError("a property was evaluated")

    class get_nested:  # noqa: N801
        pass

    get_callable = functools.partial(print, "a secret")
    get_exception = ValueError


@pytest.fixture(scope="module")
def table() -> EventTable:
    return EventTable(Handler())


def served(table: EventTable, verb: str, noun: str) -> Any:
    """Return what the method returns that serves an event."""
    result = table.find(verb, noun).method(None, ("", ""))
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


@pytest.mark.parametrize(
    ("verb", "noun", "method"),
    [
        ("get", "time", "get_time"),
        ("get", "time/utc", "get_time_utc"),
        ("get", "time_utc", "get_time_utc"),
        ("post", "only", "post_only"),
        ("head", "only", "head_only"),
        ("head", "both", "head_both"),
        ("get", "both", "get_both"),
        ("head", "time/utc", "get_time_utc"),
    ],
)
def test_verb_and_noun_name_the_method(table: EventTable, verb: str, noun: str, method: str) -> None:
    assert served(table, verb, noun) == method


def test_an_event_knows_the_names_of_its_figures(table: EventTable) -> None:
    event = table.find("get", "time/utc")
    assert event.count == "message.received.handle.get_time_utc.tick"
    assert event.timing == "message.received.handle.get_time_utc.timing"


def test_a_noun_that_no_verb_serves_is_not_found_and_the_method_named(table: EventTable) -> None:
    with pytest.raises(NoHandlerError, match="no method 'get_date_utc'") as refused:
        table.find("get", "date/utc")
    assert (refused.value.status, refused.value.return_code) == (404, 255)


def test_a_path_without_a_noun_is_told_what_it_lacks(table: EventTable) -> None:
    with pytest.raises(NoHandlerError, match="the path names no event"):
        table.find("get", "")


@pytest.mark.parametrize(
    ("verb", "noun", "allow"),
    [
        ("post", "time", ("get", "put", "head")),
        ("delete", "time", ("get", "put", "head")),
        ("get", "only", ("post", "head")),
        ("put", "both", ("get", "head")),
    ],
)
def test_a_noun_under_another_verb_names_those_that_serve_it(
    table: EventTable, verb: str, noun: str, allow: tuple[str, ...]
) -> None:
    with pytest.raises(WrongVerbError, match=f"no method '{verb}_{noun}'") as refused:
        table.find(verb, noun)
    assert refused.value.allow == allow
    assert (refused.value.status, refused.value.return_code) == (405, 255)


def test_head_is_not_served_by_other_methods_than_get(table: EventTable) -> None:
    class PostOnly:
        async def post_only(self, ctx: Any, post_data: Any) -> None:
            raise NotImplementedError

    with pytest.raises(WrongVerbError) as refused:
        EventTable(PostOnly()).find("head", "only")
    assert refused.value.allow == ("post",)


VERBS = (
    "get",
    "post",
    "put",
    "delete",
    "patch",
    "head",
    "start",
    "stop",
    "",
    "_",
    "__init",
    "GET",
    "options",
    "getattr",
)
NOUNS = (
    "",
    "_",
    "__",
    "__init__",
    "__class__",
    "__dict__",
    "__class__/__init__",
    "init__",
    "start_hook",
    "hook",
    "stop/hook",
    "attribute",
    "instance",
    "private",
    "_private",
    "static",
    "class",
    "property",
    "cached",
    "nested",
    "callable",
    "exception",
    "away",
    "upper",
    "time.__func__",
    "time/__func__",
    "time\0",
    "time ",
    " time",
    "Time",
    "TIME",
    "time/",
    "/time",
    "time/../time",
    "tіme",  # noqa: RUF001 - a Cyrillic letter
    "ｔｉｍｅ",  # noqa: RUF001 - full width, which Python's own identifiers take for ASCII
    "tım\u0065",  # noqa: RUF001 - without its dot
    "time\u200b",
    "time\u0301",
    "\U0001f550",
    "\r\nset-cookie: a=b",
    "x" * 10_000,
    "time_" * 2_000,
)


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: ascii(noun[:20]))
def test_nothing_but_event_methods_can_be_reached(table: EventTable, noun: str) -> None:
    for verb in VERBS:
        with pytest.raises(NoHandlerError) as refused:
            table.find(verb, noun)
        assert not isinstance(refused.value, WrongVerbError)
        assert len(str(refused.value)) < 1000
        assert str(refused.value).isascii()
        assert str(refused.value).isprintable()


def test_the_verbs_of_a_noun_are_lower_case_letters_only(table: EventTable) -> None:
    for verb in ("GET", "Get", "get ", "ge", "", "options", "connect", "get_time", "ɡet"):  # noqa: RUF001
        with pytest.raises(NoHandlerError):
            table.find(verb, "time")


@pytest.mark.parametrize("base", [object, EventHandler, ServerEventHandler, ClientEventHandler])
def test_a_handler_without_methods_serves_nothing(base: type) -> None:
    assert EventTable(base()).manifest == []


def test_what_the_bases_bring_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_secret(self: object, ctx: object, post_data: object) -> str:
        raise AssertionError

    for base in (EventHandler, ServerEventHandler, ClientEventHandler):
        monkeypatch.setattr(base, "get_secret", get_secret, raising=False)

        class Mine(base):  # type: ignore[valid-type, misc]
            pass

        assert EventTable(Mine()).manifest == []


def test_methods_of_the_users_own_bases_are_events_and_the_last_definition_counts() -> None:
    class First(Handler):
        def get_time_utc(self, ctx: Any, post_data: Any) -> str:
            return f"First, then {super().get_time_utc(ctx, post_data)}"

    class Mixin:
        def get_time_utc(self, ctx: Any, post_data: Any) -> str:
            return "Mixin"

    class Second(Mixin, Handler):
        pass

    assert served(EventTable(First()), "get", "time/utc") == "First, then get_time_utc"
    assert served(EventTable(First()), "get", "time") == "get_time"
    assert served(EventTable(Second()), "get", "time/utc") == "Mixin"


@pytest.mark.parametrize(
    "hiding",
    [
        None,
        "text",
        property(lambda self: print),
        staticmethod(print),
        classmethod(print),
        functools.partial(print),
        int,
    ],
    ids=lambda hiding: repr(hiding).partition(" at 0x")[0],  # the same in every run
)
def test_what_a_subclass_hides_is_no_event(hiding: object) -> None:
    table = EventTable(type("Hiding", (Handler,), {"get_time_utc": hiding})())
    with pytest.raises(NoHandlerError):
        table.find("get", "time/utc")
    assert "time_utc" not in [event.noun for event in table.manifest]


def test_what_is_set_on_the_instance_does_not_replace_a_method() -> None:
    handler = Handler()
    vars(handler)["get_time_utc"] = lambda ctx, post_data: "a secret"
    assert served(EventTable(handler), "get", "time/utc") == "get_time_utc"


def test_a_handler_is_not_asked_for_attributes() -> None:
    class Asked(Handler):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

        def __getattribute__(self, name: str) -> Any:
            if name.startswith(("get_time", "get_secret")):
                raise AssertionError(name)
            return super().__getattribute__(name)

    table = EventTable(Asked())
    assert table.find("get", "time")
    with pytest.raises(NoHandlerError):
        table.find("get", "secret")


def test_a_method_that_cannot_serve_events_is_found_at_start() -> None:
    class Helping(EventHandler):
        def get_connection(self) -> None:
            raise NotImplementedError

    with pytest.raises(ConfigError, match=r"Helping\.get_connection must take \(self, ctx, post_data, \.\.\.\)"):
        EventTable(Helping())


def test_the_manifest_tells_every_event_in_order(table: EventTable) -> None:
    assert [(event.verb, event.noun, event.at_most_once) for event in table.manifest] == [
        ("get", "both", False),
        ("get", "time", False),
        ("get", "time_utc", False),
        ("head", "both", False),
        ("head", "only", False),
        ("post", "only", False),
        ("put", "time", True),
    ]
    assert table.manifest[1].doc == "Tell the time.\n\nIn the usual way."
    (seconds,) = table.manifest[-1].arguments
    assert (seconds.name, json.loads(seconds.schema), seconds.required) == ("seconds", {"type": "number"}, True)
