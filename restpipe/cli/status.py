"""`restpipe status`: how the node on this machine does, as its page at `/` shows it."""

import http.client
import json
import sys
from collections.abc import Mapping
from contextlib import closing
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from restpipe.cli.call import Outcome
from restpipe.cli.local import Connection, node_at, node_of, refusal, shown
from restpipe.config import WebBind, load_client_settings, load_server_settings
from restpipe.exceptions import ConfigError
from restpipe.version import __version__

ANSWER_TIMEOUT = 10.0
# Peers that one answer brings; there are as many answers as are needed.
PAGE = 200
# Bytes of an answer that is read; one of so many peers has a tenth.
MAX_ANSWER = 16 * 1024 * 1024

# Characters of a line where there is no screen.
NO_SCREEN = 1000


class Role(StrEnum):
    """Which node of this machine."""

    SERVER = "server"
    CLIENT = "client"


class Sort(StrEnum):
    """What peers are sorted by."""

    NAME = "name"
    ADDRESS = "address"
    SINCE = "since"
    RATE = "rate"
    FAILED = "failed"
    IN_FLIGHT = "in_flight"
    ROUND_TRIP = "round_trip"
    BYTES = "bytes"
    EXPIRES = "expires"


class NoStatusError(Exception):
    """The node did not tell its status. The message says why.

    Attributes:
        outcome: the exit code that says it.
        connected: somebody listens there.
    """

    def __init__(self, outcome: Outcome, message: str, *, connected: bool = True) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.connected = connected


class Watched:
    """A node that is asked for its status.

    Args:
        address: of its web server.
        token: "" for none.
    """

    def __init__(self, address: WebBind, token: str) -> None:
        self.address = address
        self._token = token

    def ask(self, **query: object) -> dict[str, Any]:
        """Return what `/status` answers.

        Raises:
            NoStatusError: there is no answer, or it is none.
        """
        headers = {"User-Agent": f"restpipe/{__version__}", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        with closing(Connection(self.address)) as connection:
            try:
                connection.connect()
            except OSError as error:
                raise NoStatusError(Outcome.NEVER_SENT, refusal(self.address, error), connected=False) from None
            connection.sock.settimeout(ANSWER_TIMEOUT)
            try:
                connection.request("GET", f"/status?{urlencode(query)}", headers=headers)
                response = connection.getresponse()
                body = response.read(MAX_ANSWER)
                if response.length and len(body) < MAX_ANSWER:
                    raise http.client.IncompleteRead(body, response.length)
            except (OSError, http.client.HTTPException) as error:
                raise NoStatusError(
                    Outcome.BROKEN, f"{shown(self.address)} did not answer: {error or type(error).__name__}"
                ) from None
        return self._told(response, body)

    def ask_all(self, **query: object) -> dict[str, Any]:
        """Return what `/status` answers, with all peers that match."""
        document = self.ask(**query, limit=PAGE)
        peers: list[Any] = document["peers"]["list"]
        page, offset = list(peers), 0
        while len(page) == PAGE:
            offset += PAGE
            page = self.ask(**query, limit=PAGE, offset=offset)["peers"]["list"]
            known = {peer["name"] for peer in peers}
            peers += [peer for peer in page if peer["name"] not in known]  # they may have moved meanwhile
        return document

    def _told(self, response: http.client.HTTPResponse, body: bytes) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if response.status == http.HTTPStatus.OK and isinstance(document, dict) and "peers" in document:
            return document
        if response.status == http.HTTPStatus.UNAUTHORIZED:
            raise NoStatusError(Outcome.REFUSED, f"{shown(self.address)} wants its token; set RP_WEB_TOKEN")
        detail = document.get("detail") if isinstance(document, dict) else None
        raise NoStatusError(
            Outcome.REFUSED, f"{shown(self.address)} tells no status: {response.status} {detail or response.reason}"
        )


def find(role: Role | None, url: str | None, query: Mapping[str, object]) -> tuple[Watched, dict[str, Any]]:
    """Return a node, and what it told: the one that is named, or the first of server and client that is there.

    Raises:
        ConfigError: the settings do not tell where it is.
        NoStatusError: it does not tell its status.
    """
    if url is not None:
        watched = Watched(*node_at(url))
        return watched, watched.ask(**query)
    absent: list[str] = []
    for each, load in ((Role.SERVER, load_server_settings), (Role.CLIENT, load_client_settings)):
        if role not in (None, each):
            continue
        watched = Watched(*node_of(load()))
        try:
            return watched, watched.ask(**query)
        except NoStatusError as error:
            if error.connected:
                raise
            absent.append(str(error))
    raise NoStatusError(Outcome.NEVER_SENT, f"{'; '.join(absent)}; is it running?")


HELP = """Show how the node on this machine does.

Who is connected, rates, round trips, certificates, what failed of late: what its web server shows at "/" and tells at
"/status". The node is found as `restpipe call` finds it; where neither server nor client is named, it is the first of
them that answers. The token comes from RP_WEB_TOKEN.

Exits with

\b
0: told.
2: the command line, or a setting, is wrong.
3: no node answers.
5: the node refused, for it wants its token or has no status.
6: the answer broke off, or did not come.
"""

ROLE = Annotated[Role | None, typer.Argument(help="Which node of this machine.", show_default=False)]
CLIENTS = Annotated[str, typer.Option("--clients", metavar="TEXT", help="Only peers whose name or address has it.")]
NODE = Annotated[
    str | None,
    typer.Option("--node", metavar="URL", help="Web server of the node: http://HOST:PORT or unix:/PATH."),
]


def status(
    role: ROLE = None,
    clients: CLIENTS = "",
    sort: Annotated[Sort, typer.Option("--sort", help="What peers are sorted by.")] = Sort.NAME,
    events: Annotated[int, typer.Option("--events", metavar="NUMBER", min=0, help="Recent exchanges to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Write it all as JSON.")] = False,
    node: NODE = None,
) -> None:
    """Show it once, and exit as `HELP` says."""
    from rich.console import Console

    from restpipe.cli.status_view import StatusView

    query: dict[str, object] = {"clients": clients, "sort": sort.value}
    try:
        watched, _ = find(role, node, {"limit": 0, "events": 0})
        document = watched.ask_all(**query) if as_json else watched.ask_all(**query, events=events)
    except (ConfigError, NoStatusError) as error:
        raise failed("status", error) from None
    if as_json:
        json.dump(document, sys.stdout, indent=2)
        print()
        return
    screen = sys.stdout.isatty()
    # What is piped away is not for a screen: no column is left out of it, and no line broken.
    console = Console() if screen else Console(width=NO_SCREEN)
    console.print(StatusView(document, width=console.width))


def failed(command: str, error: ConfigError | NoStatusError) -> typer.Exit:
    """Tell of a failure, and return what ends the command with its exit code."""
    typer.echo(f"restpipe {command}: {error}", err=True)
    return typer.Exit(error.outcome if isinstance(error, NoStatusError) else Outcome.USAGE)
