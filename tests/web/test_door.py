"""The door lets in who names the node, comes from no other site, and shows the token."""

import base64
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.config import TcpBind, UnixBind, WebBind
from restpipe.exceptions import BadRequestError, EventError, ForbiddenError, MisdirectedError, UnauthorizedError
from restpipe.web.door import Door

LOOPBACK = TcpBind("127.0.0.1", 8080)
SOCKET = UnixBind(Path("/run/web.sock"))
NAMES = ("node-1", "rpserver.local")


def knock(headers: dict[str, str], *, bind: WebBind = LOOPBACK, token: str = "") -> None:
    """Come to a door with headers."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    Door(bind, NAMES, token).check(raw)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8080",
        "node-1",
        "rpserver.local:80",
        "RPSERVER.local",
        "127.0.0.1:8080",
        "127.0.0.1",
        "[::1]:8080",
        "[::1]",
        "192.0.2.7:1",
        socket.gethostname(),
    ],
)
def test_a_host_that_is_the_nodes_or_an_address_is_let_in(host: str) -> None:
    knock({"Host": host})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "0.0.0.0:8080",
        "[::]",
        "node-1.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80:localhost",
        "localhost@evil.example",
        "[::1].evil.example",
        "[evil.example]",
        "localhost evil",
        "localhost:80.evil.example",
        "localhost:evil",
        "2130706433x",
        "-",
    ],
)
def test_a_host_that_is_none_of_the_nodes_is_421_and_shown(host: str) -> None:
    with pytest.raises(MisdirectedError, match="none of this node's names; RP_WEB_HOSTS") as caught:
        knock({"Host": host})
    assert host in str(caught.value)


def test_a_host_that_was_refused_is_refused_again() -> None:
    door = Door(LOOPBACK, NAMES, "")
    door.check([(b"host", b"localhost")])
    for _ in range(3):
        with pytest.raises(MisdirectedError):
            door.check([(b"host", b"evil.example")])


@pytest.mark.parametrize("others", [[b"evil.example"], [b"localhost"], [b"localhost", b"localhost"], [b""]])
@pytest.mark.parametrize("first", [b"localhost", b""])
def test_several_host_headers_are_400_whatever_they_say(first: bytes, others: list[bytes]) -> None:
    with pytest.raises(BadRequestError, match="several Host headers") as caught:
        Door(LOOPBACK, NAMES, "").check([(b"host", host) for host in [first, *others]])
    assert caught.value.status == 400


@pytest.mark.parametrize("host", ["evil.example", "whatever.local:80", "rpclient.local"])
def test_behind_a_unix_socket_every_host_is_let_in(host: str) -> None:
    knock({"Host": host}, bind=SOCKET)


def test_a_request_without_host_is_400_but_of_a_protocol_that_asks_for_none() -> None:
    door = Door(LOOPBACK, NAMES, "")
    door.check([(b"accept", b"*/*")], "1.0")
    door.check([(b"accept", b"*/*")], "2")
    with pytest.raises(BadRequestError, match="no Host header") as caught:
        door.check([(b"accept", b"*/*")], "1.1")
    assert caught.value.status == 400


def test_the_name_that_the_web_server_is_bound_to_is_the_nodes() -> None:
    knock({"Host": "web.example:8080"}, bind=TcpBind("web.example", 8080))


@pytest.mark.parametrize("bind", [LOOPBACK, SOCKET])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost"},
        {"Origin": "http://[", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "localhost:8080"},
        {"Origin": "http://evil.example/localhost:8080"},
        {"Origin": "http://localhost:8080@evil.example"},
        {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_of_another_site_is_403(headers: dict[str, str], bind: WebBind) -> None:
    with pytest.raises(ForbiddenError, match="another site") as caught:
        knock({"Host": "localhost:8080"} | headers, bind=bind)
    assert (caught.value.status, caught.value.return_code) == (403, 253)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:8080"},
        {"Origin": "https://LOCALHOST:8080"},
        {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_the_nodes_own_page_and_the_address_bar_are_let_in(headers: dict[str, str]) -> None:
    knock({"Host": "localhost:8080"} | headers)


@pytest.mark.parametrize(
    "authorization", ["Bearer s3cret", "bearer  s3cret ", basic("anyone", "s3cret"), basic("", "s3cret")]
)
def test_the_token_is_taken_as_bearer_or_as_the_password_of_basic(authorization: str) -> None:
    knock({"Host": "localhost", "Authorization": authorization}, token="s3cret")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer s3cret2",
        "Bearer s3cre",
        "s3cret",
        "Token s3cret",
        "Basic s3cret",
        "Basic ====",
        "Basic \xff",
        basic("s3cret", ""),
        basic("anyone", "wrong"),
        "Bearer \xe9",
    ],
)
def test_no_token_or_a_wrong_one_is_401_and_the_message_has_neither(authorization: str | None) -> None:
    headers = {"Host": "localhost"} | ({} if authorization is None else {"Authorization": authorization})
    with pytest.raises(UnauthorizedError, match="RP_WEB_TOKEN") as caught:
        knock(headers, token="s3cret")
    assert (caught.value.status, caught.value.return_code) == (401, 253)
    assert "s3cret" not in str(caught.value)


def test_the_token_does_not_open_the_door_to_other_sites() -> None:
    with pytest.raises(ForbiddenError):
        knock({"Host": "localhost", "Origin": "http://evil.example", "Authorization": "Bearer s3cret"}, token="s3cret")
    with pytest.raises(MisdirectedError):
        knock({"Host": "evil.example", "Authorization": "Bearer s3cret"}, token="s3cret")


def test_a_node_without_token_takes_any_authorization_for_the_handlers() -> None:
    knock({"Host": "localhost", "Authorization": "Bearer somebody's"})


@pytest.mark.parametrize(("token", "wants"), [("s3cret", True), ("", False)])
def test_the_door_knows_whether_it_wants_a_token(token: str, wants: bool) -> None:
    assert Door(LOOPBACK, NAMES, token).wants_token is wants


VALUES = [b"localhost", b"http://localhost", b"[::1", b"Bearer s3cret", b"Basic czpz"]
HEADERS = st.tuples(
    st.sampled_from([b"host", b"origin", b"sec-fetch-site", b"authorization", b"x"]),
    st.binary() | st.sampled_from(VALUES),
)


@given(st.lists(HEADERS))
def test_any_headers_are_let_in_or_refused_by_an_error_with_an_answer(headers: list[tuple[bytes, bytes]]) -> None:
    refusal = None
    try:
        Door(LOOPBACK, NAMES, "s3cret").check(headers)
    except EventError as error:
        refusal = error
    if refusal is None:
        assert any(name == b"authorization" and b"s3cret" in value for name, value in headers)
    else:
        assert refusal.status in (400, 401, 403, 421)
        assert str(refusal).isprintable()
