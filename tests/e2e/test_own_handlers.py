"""Event handlers of one's own, in a module in the current directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx
import pytest
import requests
from e2e_curl import Curl, curl
from e2e_processes import Node, Site, free_port, site_with_handlers

from restpipe import PipeFailError, raise_for_exception

# CURLE_PARTIAL_FILE
PARTIAL_FILE = 18

TEN_LINES = """
from restpipe import ServerEventHandler

class Greeter(ServerEventHandler):
    def get_greeting(self, ctx, post_data, name, times: int = 1):
        return {"greeting": f"hello {name}" * times}

    async def post_length(self, ctx, post_data):
        mime_type, data = post_data
        return "text/plain", 0, f"{len(data)} bytes of {mime_type}"
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    directory = tmp_path_factory.mktemp("nodes")
    with site_with_handlers(directory) as site:
        server, client = site.pair()
        server.may_raise = client.may_raise = True
        yield server, client


@pytest.fixture(scope="module")
def to_server(nodes: tuple[Node, Node]) -> str:
    """The URL that leads from the client node to the server."""
    return f"{nodes[1].web}/server"


@pytest.fixture(scope="module")
def to_client(nodes: tuple[Node, Node]) -> str:
    """The URL that leads from the server node to the client."""
    return f"{nodes[0].web}/client/client"


@pytest.fixture(params=["to_server", "to_client"])
def base(request: pytest.FixtureRequest) -> str:
    """Either of them: what holds one way holds the other."""
    url: str = request.getfixturevalue(request.param)
    return url


def test_ten_lines_in_the_current_directory_are_a_handler(tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(TEN_LINES)
    with Site(tmp_path) as site:
        server = site.server(RP_EVENT_HANDLER_FQ_CLASS="greeter.Greeter")
        server.wait_for(r"^  serves    GET greeting, POST length$")
        base = f"{site.client(server.pipe_port).web}/server"
        assert curl(f"{base}/greeting//world").json == {"greeting": "hello world"}
        assert curl(f"{base}/greeting?name=world&times=2").json == {"greeting": "hello worldhello world"}
        assert curl(f"{base}/length", data=b"\0" * 300).text == "300 bytes of application/octet-stream"


def test_a_handler_that_cannot_be_found_is_named_and_the_node_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(TEN_LINES)
    with Site(tmp_path) as site:
        process = site.run(
            "restpipe", "server", RP_EVENT_HANDLER_FQ_CLASS="greeter.Greter", **site.identity("server", "server")
        )
        output = process.wait(code=2)
    assert "RP_EVENT_HANDLER_FQ_CLASS='greeter.Greter'" in output
    assert "did you mean Greeter?" in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("path", ["sum//20/22", "sum//20?y=22", "sum?x=20&y=22", "sum?y=22&x=20"])
def test_arguments_come_by_position_and_by_name_and_have_their_types(base: str, path: str) -> None:
    assert curl(f"{base}/{path}").json == {"sum": 42}


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        ("sum//many", "'x'"),
        ("sum?x=1&y=many", "'y'"),
        ("sum", "'x'"),
        ("sum//1/2/3", "argument 3"),
        ("sum?x=1&z=3", "'z'"),
        ("sum//1?x=1", "'x'"),
        ("weekday//2024-02-30", "'day'"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(base: str, path: str, argument: str) -> None:
    answer = curl(f"{base}/{path}")
    assert answer.outcome == (400, 252, "no")
    assert argument in answer.json["detail"]


def test_a_converted_argument_and_a_noun_of_several_parts_reach_their_methods(base: str) -> None:
    assert curl(f"{base}/weekday//2024-02-29").json == "Thursday"
    assert curl(f"{base}/deep/noun//a%2Fb//%C3%BC").json == ["a/b", "", "ü"]


def test_every_form_of_a_result_arrives(base: str) -> None:
    data = curl(f"{base}/data")
    assert (data.status, data.code, data.headers["content-type"], data.text) == (
        200, 0, "application/json", '{"data": [1, 2]}',
    )  # fmt: skip
    nothing = curl(f"{base}/nothing")
    assert (nothing.status, nothing.code, nothing.body) == (200, 0, b"")
    triple = curl(f"{base}/triple")
    assert (triple.status, triple.code, triple.text) == (200, 7, "seven, süß")
    assert triple.headers["content-type"] == "text/plain; charset=utf-8"
    empty = curl(f"{base}/empty_triple")
    assert (empty.status, empty.code, empty.body) == (200, 9, b"")
    raw = curl(f"{base}/bytes")
    assert (raw.headers["content-type"], raw.body) == ("application/octet-stream", bytes(range(256)))
    reply = curl(f"{base}/reply")
    assert (reply.status, reply.code, reply.headers["location"], reply.json) == (201, 3, "/made/1", {"made": True})


def test_head_answers_like_get_without_a_body(base: str) -> None:
    head = curl(f"{base}/data", "--head")
    assert (head.status, head.code, head.body) == (200, 0, b"")
    assert head.headers["content-length"] == str(len('{"data": [1, 2]}'))


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "PATCH"])
def test_a_noun_under_another_verb_is_405_and_says_which(base: str, verb: str) -> None:
    answer = curl(f"{base}/sum", "-X", verb)
    assert answer.outcome == (405, 255, "no")
    assert answer.headers["allow"] == "GET, HEAD"
    assert f"{verb.lower()}_sum" in answer.json["detail"]


def test_json_is_decoded_and_what_is_none_is_told_with_the_place(base: str) -> None:
    as_json = ("-H", "Content-Type: application/json")
    assert curl(f"{base}/echo", *as_json, "-d", '{"a": [1.5, null, "ü"]}').json == {"a": [1.5, None, "ü"]}
    broken = curl(f"{base}/echo", *as_json, "-d", '{"a": ')
    assert broken.outcome == (400, 252, "no")
    assert "line 1 column" in broken.json["detail"]


def test_a_handler_calls_back_to_its_caller_while_it_serves(to_server: str, to_client: str) -> None:
    assert curl(f"{to_client}/ask_back").json == {"caller": "client", "address": "127.0.0.1"}
    assert curl(f"{to_server}/ask_back_sync").json == {"sum": 42}
    assert curl(f"{to_client}/ask_back_sync").json == {"sum": 42}


@pytest.mark.parametrize("noun", ["lines", "steps"])
def test_a_piece_of_a_generator_arrives_before_the_next_is_made(base: str, noun: str) -> None:
    with Curl(f"{base}/{noun}//{noun}") as request:
        request.read_until(b"first\n")
        assert curl(f"{base}/gate//{noun}", "-X", "POST").status == 200
        assert request.read_until(b"last\n") == b"last\n"


def test_a_generator_that_breaks_is_seen_to_break(nodes: tuple[Node, Node], to_server: str) -> None:
    with Curl(f"{to_server}/broken_lines//break") as request:
        request.read_until(b"first\n")
        assert curl(f"{to_server}/gate//break", "-X", "POST").status == 200
        assert request.failure() == PARTIAL_FILE
    nodes[1].wait_for("the answer to GET '/server/broken_lines//break' broke: .*no more lines")


def test_a_handler_that_raises_tells_class_message_and_traceback(base: str) -> None:
    answer = curl(f"{base}/boom")
    assert answer.outcome == (500, 251, "yes")
    exception = answer.json["exception"]
    assert (exception["class"], exception["message"]) == ("ValueError", "it went boom, süß")
    assert "in get_boom" in exception["traceback"]


def test_a_traceback_is_sent_only_where_the_handling_node_allows_it(tmp_path: Path) -> None:
    with site_with_handlers(tmp_path) as site:
        server = site.server(RP_SEND_TRACEBACKS="0")
        client = site.client(server.pipe_port)
        server.may_raise = client.may_raise = True
        silent = curl(f"{client.web}/server/boom").json["exception"]
        assert silent == {"class": "ValueError", "message": "it went boom, süß", "traceback": ""}
        assert "in get_boom" in curl(f"{server.web}/client/client/boom").json["exception"]["traceback"]


class Ask(Protocol):
    """Makes a request by some HTTP library, and hands the response to `raise_for_exception`."""

    def __call__(self, method: str, url: str, **headers: str) -> None: ...


def by_requests(method: str, url: str, **headers: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        raise_for_exception(session.request(method, url, headers=headers, timeout=30))


def by_httpx(method: str, url: str, **headers: str) -> None:
    raise_for_exception(httpx.request(method, url, headers=headers, trust_env=False))


by_either = pytest.mark.parametrize("ask", [by_requests, by_httpx])


@by_either
def test_raise_for_exception_raises_what_the_handler_raised(to_client: str, ask: Ask) -> None:
    with pytest.raises(PipeFailError, match="ValueError: it went boom, süß") as caught:
        ask("GET", f"{to_client}/boom")
    error = caught.value
    assert (error.error_message, error.error_class_name) == ("it went boom, süß", "ValueError")
    assert "in get_boom" in error.error_traceback
    assert (error.return_code, error.status, error.executed, error.retryable) == (251, 500, "yes", False)


@by_either
@pytest.mark.parametrize(
    ("method", "path", "status", "code", "class_name"),
    [("GET", "unheard_of", 404, 255, "NoHandlerError"), ("PUT", "sum", 405, 255, "WrongVerbError")],
)
def test_raise_for_exception_raises_what_restpipe_refused(
    to_server: str, ask: Ask, method: str, path: str, status: int, code: int, class_name: str
) -> None:
    with pytest.raises(PipeFailError, match=f"get_{path}|put_{path}") as caught:
        ask(method, f"{to_server}/{path}")
    error = caught.value
    assert (error.status, error.return_code, error.error_class_name) == (status, code, class_name)
    assert (error.executed, error.retryable, error.error_traceback) == ("no", False, "")


@pytest.fixture(scope="module")
def to_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL that leads from a client node to a server that is not there."""
    with Site(tmp_path_factory.mktemp("lonely")) as site:
        yield f"{site.client(free_port(), connected=False).web}/server"


@by_either
def test_raise_for_exception_tells_that_a_request_was_never_sent(to_nobody: str, ask: Ask) -> None:
    with pytest.raises(PipeFailError, match="no pipe to the server within 0 s") as caught:
        ask("POST", f"{to_nobody}/time", Prefer="wait=0")
    error = caught.value
    assert (error.status, error.return_code, error.executed, error.retryable) == (503, 245, "no", True)


@by_either
def test_raise_for_exception_returns_where_the_handler_made_the_answer(to_server: str, ask: Ask) -> None:
    ask("GET", f"{to_server}/triple")
    ask("GET", f"{to_server}/reply")
