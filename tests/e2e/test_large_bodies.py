"""Bodies that are large, and bodies whose size is a boundary of something."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_curl import curl
from e2e_processes import Node, Process, site_with_handlers

KIB = 1024
LIMIT = 12 * KIB * KIB


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with site_with_handlers(tmp_path_factory.mktemp("bodies"), RP_MAX_BODY_BYTES=str(LIMIT)) as site:
        server, client = site.pair()
        server.wait_for("client client connected")
        yield server, client


@pytest.fixture(params=["to server", "to client"])
def base(request: pytest.FixtureRequest, nodes: tuple[Node, Node]) -> str:
    server, client = nodes
    return f"{client.web}/server" if request.param == "to server" else f"{server.web}/client/client"


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


CHUNKED = ("-H", "Transfer-Encoding: chunked")


@pytest.mark.parametrize("chunked", [(), CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1, *(n * KIB + d for n in (16, 32, 64, 128, 1024) for d in (-1, 0, 1))])
def test_a_body_of_any_size_comes_back_as_it_was(base: str, size: int, chunked: tuple[str, ...]) -> None:
    data = some_bytes(size)
    answer = curl(f"{base}/echo", *chunked, data=data)
    assert (answer.status, answer.code) == (200, 0)
    assert answer.body == data


def test_ten_megabytes_come_back_as_they_were(base: str) -> None:
    data = some_bytes(10 * 1000 * 1000)
    answer = curl(f"{base}/echo", data=data)
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("chunked", [(), CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("over", [1, 4 * LIMIT])
def test_a_body_over_the_limit_is_refused_with_the_limit_and_harms_nothing(
    base: str, over: int, chunked: tuple[str, ...]
) -> None:
    answer = curl(f"{base}/echo", *chunked, data=bytes(LIMIT + over))
    assert answer.outcome == (413, 249, "no")
    assert str(LIMIT) in answer.json["detail"]
    # Where the length is told, it is refused by that, unread.
    assert (str(LIMIT + over) in answer.json["detail"]) == (not chunked)
    assert curl(f"{base}/echo", data=b"after it").body == b"after it"


def test_a_request_follows_one_that_was_refused_on_the_same_connection_or_on_a_new_one(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(LIMIT + 1))
    url = f"{nodes[1].web}/server/echo"
    process = Process(
        "curl", "-sS", "-o", tmp_path / "1", "-w", "%{http_code}\n", "--data-binary", f"@{large}", url,
        "--next", "-sS", "-o", tmp_path / "2", "-w", "%{http_code}\n", "-d", "small", url,
        directory=tmp_path, environment={},
    )  # fmt: skip
    assert process.wait() == "413\n200\n"


def test_the_pipe_is_still_the_first_one(nodes: tuple[Node, Node]) -> None:
    server, client = nodes
    assert "disconnected" not in server.output + client.output
