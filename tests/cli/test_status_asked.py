"""`restpipe status` lists every client, however many answers that takes, and none twice, and no part of an answer."""

import socket
import threading
from typing import Any

import pytest

from restpipe.cli import status
from restpipe.cli.call import Outcome
from restpipe.config import TcpBind


class Busy(status.Watched):
    """A node whose clients come while it is asked."""

    def __init__(self, *names: str) -> None:
        super().__init__(TcpBind("127.0.0.1", 1), "")
        self.names = [*names]

    def ask(self, **query: Any) -> dict[str, Any]:
        offset = query.get("offset", 0)
        page = self.names[offset : offset + query["limit"]]
        told = {"peers": {"matching": len(self.names), "list": [{"name": name} for name in page]}}
        if offset == 0:
            self.names.insert(0, "newest")  # which moves all others
        return told


@pytest.mark.parametrize("names", ["", "a", "ab", "abc", "abcdef", "abcdefg"])
def test_all_clients_are_told_whatever_one_answer_holds(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PAGE", 2)
    told = Busy(*names).ask_all(sort="name")
    assert [peer["name"] for peer in told["peers"]["list"]] == [*names]


@pytest.mark.parametrize("head", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_an_answer_whose_node_dies_meanwhile_broke_off(head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:

        def serve() -> None:
            connection, _ = node.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\n%b\r\n\r\n3e8\r\n{"peers": ' % head)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        with pytest.raises(status.NoStatusError, match="did not answer: IncompleteRead") as caught:
            status.Watched(TcpBind("127.0.0.1", node.getsockname()[1]), "").ask()
        serving.join()
    assert caught.value.outcome is Outcome.BROKEN
