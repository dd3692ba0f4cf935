"""Who waits for an answer at a terminal is told so, and what is not known is told to be unknown."""

import io
import json
import socket
import sys
import threading
from collections.abc import Callable

import pytest

from restpipe.cli import caller
from restpipe.cli.call import Outcome
from restpipe.config import TcpBind


class Screen(io.StringIO):
    """Standard error on a terminal, or elsewhere."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


def asked(method: str, answer: bytes, ready: Callable[[], object] = lambda: None) -> Outcome:
    """Ask a node that gives this answer once it is ready; return what the answer means."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                ready()
                connection.sendall(answer)

        node = threading.Thread(target=serve)
        node.start()
        question = caller.Asked(method=method, target="/server/slow", headers=[], data=None, timeout=20, token="")
        outcome = caller.perform(TcpBind("127.0.0.1", server.getsockname()[1]), question, None)
        node.join()
    return outcome


@pytest.mark.parametrize("terminal", [True, False])
def test_who_waits_long_is_told_so_at_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(caller, "LONG", 0.0)
    answer = b"HTTP/1.1 204 No Content\r\nX-Event-Return-Code: 0\r\n\r\n"
    outcome = asked("GET", answer, lambda: screen.written.wait(10 if terminal else 0.1))
    assert outcome is Outcome.DONE
    assert screen.getvalue() == ("waiting for the answer; Ctrl-C cancels\n" if terminal else "")


@pytest.mark.parametrize(
    ("executed", "outcome"), [("no", Outcome.REFUSED), ("yes", Outcome.REFUSED), ("unknown", Outcome.UNKNOWN)]
)
def test_a_refusal_of_what_may_have_been_executed_is_of_unknown_outcome(executed: str, outcome: Outcome) -> None:
    document = json.dumps({"executed": executed, "exception": {}}).encode()
    head = b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
    assert asked("GET", head % len(document) + document) is outcome


@pytest.mark.parametrize("length", [10, caller.LARGE + 10])
@pytest.mark.parametrize("text", [b'{"title": "no cover"%b}', b"[%b]", b"no JSON%b"])
def test_a_problem_document_of_the_handlers_own_is_written(
    text: bytes, length: int, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    document = text % bytes(length).replace(b"\0", b" ")
    head = b"HTTP/1.1 402 Said\r\nContent-Type: application/problem+json\r\nX-Event-Return-Code: 7\r\n"
    assert asked("GET", head + b"Content-Length: %d\r\n\r\n" % len(document) + document) is Outcome.REFUSED
    written, told = capfdbinary.readouterr()
    assert written == document
    assert told == b"restpipe call: 402 Said, return code 7\n"


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (503, 245, Outcome.NEVER_SENT),
        (503, 249, Outcome.NEVER_SENT),
        (502, 246, Outcome.UNKNOWN),
        (504, 247, Outcome.UNKNOWN),
        (500, 250, Outcome.UNKNOWN),
        (500, 251, Outcome.FAILED),
        (404, 255, Outcome.REFUSED),
    ],
)
def test_an_answer_to_head_tells_its_outcome_though_it_has_no_document(
    status: int, code: int, outcome: Outcome
) -> None:
    head = b"HTTP/1.1 %d Said\r\nContent-Type: application/problem+json\r\nX-Event-Return-Code: %d\r\n\r\n"
    assert asked("HEAD", head % (status, code)) is outcome
