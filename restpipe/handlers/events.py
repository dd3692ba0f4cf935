"""The events that a handler serves: from verb and noun to a method."""

import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from restpipe.exceptions import ConfigError, ForbiddenError, NoHandlerError, WrongVerbError
from restpipe.handlers.arguments import Arguments
from restpipe.handlers.base import ALLOW, AT_MOST_ONCE, ClientEventHandler, EventHandler, ServerEventHandler
from restpipe.handlers.described import answer_of
from restpipe.identity.names import NamePatterns
from restpipe.stats import handled_count, handled_timing
from restpipe_pb.v1.pipe_pb2 import Event as ManifestEvent

VERBS = ("get", "post", "put", "delete", "patch", "head")
# RFC 9110 section 9.2.2.
IDEMPOTENT = frozenset({"get", "head", "put", "delete", "options"})
_BASES = (object, EventHandler, ServerEventHandler, ClientEventHandler)


class HandlerEvent:
    """One event: a method and how it is called.

    Attributes:
        verb: lower case.
        noun: underscores between its parts.
        method: bound.
        in_loop: calling it does not block: it returns a coroutine or a generator. Other methods run in a thread.
        arguments: how to call it.
        rule: who may call it, as the handler says; None: it says nothing.
        allow: who may call it; None: everyone.
        count: name of its counter.
        timing: name of its timing.
    """

    __slots__ = ("_answer", "allow", "arguments", "count", "in_loop", "method", "noun", "rule", "timing", "verb")

    def __init__(self, verb: str, noun: str, method: Callable[..., Any]) -> None:
        self.verb = verb
        self.noun = noun
        self.method = method
        self.in_loop = any(
            returns_at_once(method)
            for returns_at_once in (
                inspect.iscoroutinefunction,
                inspect.isasyncgenfunction,
                inspect.isgeneratorfunction,
            )
        )
        self.arguments = Arguments(method)
        self._answer = answer_of(method)
        self.rule = self.allow = _rule_of(method, f"{verb}_{noun}")
        self.count = handled_count(f"{verb}_{noun}")
        self.timing = handled_timing(f"{verb}_{noun}")

    def describe(self) -> ManifestEvent:
        """Describe it for the manifest."""
        return ManifestEvent(
            verb=self.verb,
            noun=self.noun,
            doc=inspect.getdoc(self.method) or "",
            arguments=self.arguments.described,
            at_most_once=getattr(self.method, AT_MOST_ONCE, False),
            streams_body=self.arguments.open_body is not None,
            allow=self.allow.patterns if self.allow is not None else (),
            body_schema=self.arguments.body_schema,
            answer=self._answer,
            deprecated=str(getattr(self.method, "__deprecated__", "")),  # PEP 702
        )

    def refuse(self, caller: str) -> ForbiddenError:
        """Return what a caller is told who is not among those that it is for."""
        return ForbiddenError(f"{self.verb} {self.noun} is not for {caller!r}")


class EventTable:
    """Every event that handlers serve, found once, so that nothing else of them can be reached.

    Args:
        handlers: the methods that their classes define, whose names begin with a verb, are events. What a subclass
            hides by anything but a method is none, and what is set on the instance is not looked at.

    Raises:
        ConfigError: a method cannot serve events, or two handlers serve the same noun.
    """

    def __init__(self, *handlers: object) -> None:
        self._events: dict[tuple[str, str], HandlerEvent] = {}
        self._hints: dict[str, str] = {}
        server_of: dict[str, object] = {}
        for handler in handlers:
            self._hints |= getattr(type(handler), "wrong_verb_hints", {})
            for verb, noun, function in _events_of(type(handler)):
                other = server_of.setdefault(noun, handler)
                if other is not handler:
                    raise ConfigError(
                        f"{_class_path(other)} and {_class_path(handler)} both serve the noun {noun!r}: "
                        "give one of them another, or do without one"
                    )
                self._events[verb, noun] = HandlerEvent(verb, noun, MethodType(function, handler))

    @property
    def methods(self) -> dict[CodeType, str]:
        """The names of the methods, by the code that is theirs and not a decorator's."""
        functions = (inspect.unwrap(event.method) for event in self._events.values())
        return {function.__code__: function.__qualname__ for function in functions if hasattr(function, "__code__")}

    @property
    def manifest(self) -> list[ManifestEvent]:
        """The events, described for the peer."""
        return [event.describe() for _, event in sorted(self._events.items())]

    def restrict(self, names: NamePatterns | None) -> None:
        """Let only these call what the handlers have no rule for; None: everyone may."""
        for event in self._events.values():
            event.allow = event.rule or names

    def find(self, verb: str, noun: str) -> HandlerEvent:
        """Return the event of a verb and a noun such as "time/utc".

        HEAD is served by the GET method where it has none of its own (RFC 9110 section 9.3.2).

        Raises:
            NoHandlerError: nothing serves the noun.
            WrongVerbError: other verbs do.
        """
        noun = noun.replace("/", "_")
        event = self._events.get((verb, noun))
        if event is None and verb == "head":
            event = self._events.get(("get", noun))
        if event is not None:
            return event
        if not noun:
            raise NoHandlerError("the path names no event; one is named by a noun, such as time, after a slash")
        allow = tuple(other for other in VERBS if (other, noun) in self._events)
        sought = f"{verb}_{noun}"
        if not allow:
            raise NoHandlerError(f"the event handler has no method {_shown(sought)}")
        if "get" in allow and "head" not in allow:
            allow += ("head",)
        message = f"the event handler has no method {_shown(sought)}; the noun is served for {', '.join(allow)}"
        hint = self._hints.get(noun)
        raise WrongVerbError(f"{message}: {hint}" if hint else message, allow=allow)


def _events_of(handler_class: type) -> Iterator[tuple[str, str, FunctionType]]:
    members: dict[str, Any] = {}
    for cls in reversed(handler_class.__mro__):
        if cls not in _BASES:
            members.update(vars(cls))
    for name, member in members.items():
        verb, _, noun = name.partition("_")
        if verb in VERBS and noun and inspect.isfunction(member):
            yield verb, noun, member


def _rule_of(method: Callable[..., Any], name: str) -> NamePatterns | None:
    """Find who may call a method: its own rule, that of a method it overrides, or that of its class."""
    served: type = type(method.__self__)  # type: ignore[attr-defined]
    definitions = [vars(cls).get(name) for cls in served.__mro__]
    own = (getattr(definition, ALLOW, None) for definition in definitions)
    return next((rule for rule in own if rule is not None), getattr(served, ALLOW, None))


def _class_path(handler: object) -> str:
    return f"{type(handler).__module__}.{type(handler).__qualname__}"


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 200 else name[:200] + "...")
