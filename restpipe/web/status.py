"""`/`, a page that shows how the node does, and `/status`, the same as JSON."""

import heapq
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from restpipe.exceptions import BadArgumentsError, EventError
from restpipe.nodes.client import ClientNode
from restpipe.nodes.metering import MAX_REMEMBERED, Remembered
from restpipe.nodes.server import ServerNode
from restpipe.nodes.traffic import Sample, Traffic
from restpipe.pipe import Pipe
from restpipe.version import __version__
from restpipe.web.problems import problem_response
from restpipe.web.queries import number

Node = ServerNode | ClientNode

# Peers that an answer lists, unless it is asked for fewer; and at most.
PAGE = 50
MAX_PAGE = 200
# Recent exchanges that an answer tells, unless it is asked for fewer: all that are remembered.
MAX_EVENTS = 2 * MAX_REMEMBERED
# Seconds for which a list of peers serves everyone who asks for the same: many who watch cost hardly more than one.
KEPT = 1.0
# Different lists that are kept.
MAX_KEPT = 8
# Characters that are shown of what a peer says of itself.
MAX_TEXT = 200

# Everything of the page is the node's own, and no script is in it that is not a file.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
_FILES = {"/": ("status.html", "text/html"), "/status.css": ("status.css", "text/css"),
          "/status.js": ("status.js", "text/javascript")}  # fmt: skip

Row = tuple[Pipe, Traffic]


def _by_name(row: Row) -> Any:
    return row[0].peer.name


# What the peers may be sorted by; where two are alike, by name.
_KEYS: dict[str, Callable[[Row], Any]] = {
    "name": _by_name,
    "address": lambda row: row[0].peer.address,
    "since": lambda row: -row[1].since,
    "rate": lambda row: -row[1].rate,
    "failed": lambda row: -row[1].opened.failed - row[1].served.failed,
    "in_flight": lambda row: -row[0].in_flight,
    "round_trip": lambda row: -(row[0].round_trip or 0.0),
    "bytes": lambda row: -row[1].received - row[1].sent,
    "expires": lambda row: _timestamp(row[0].peer.not_after) or float("inf"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the query asks for.

    Attributes:
        clients: part of the name or address of the peers that are wanted, in lower case.
        sort: one of `_KEYS`.
        offset: peers to leave out at the beginning.
        limit: peers at most.
    """

    clients: str
    sort: str
    offset: int
    limit: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Asked":
        """Read a query.

        Raises:
            BadArgumentsError: it makes no sense.
        """
        sort = query.get("sort", "rate")
        if sort not in _KEYS:
            raise BadArgumentsError(f"sort should be one of {', '.join(_KEYS)}")
        return cls(
            query.get("clients", "").strip().lower(),
            sort,
            number(query, "offset", 0, 1_000_000_000),
            number(query, "limit", PAGE, MAX_PAGE),
        )


class Status:
    """Tells how a node does.

    Args:
        node: the node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # What was told of peers that were asked for, and, under None, of all of them together.
        self._kept: dict[Asked | None, tuple[float, dict[str, Any]]] = {}

    def document(self, asked: Asked, since: int = 0, events: int = MAX_EVENTS) -> dict[str, Any]:
        """Return what `/status` answers.

        Args:
            asked: which peers.
            since: number in the sequence, as an earlier answer told it; samples and events of before are left out.
            events: how many at most; the last ones.
        """
        node, meter = self._node, self._node.meter
        fault, together = node.fault, self._at_most_a_second_old(None, self._together)
        return {
            "node": {
                "role": node.settings.node,
                "name": node.identity.name,
                "version": __version__,
                "started": _timestamp(node.started),
                "ready": fault is None,
                "fault": "" if fault is None else str(fault),
                "last_failure": node.last_failure[:MAX_TEXT] if isinstance(node, ClientNode) else "",
                "threads_busy": node.threads.busy,
                "metrics": node.settings.metrics,
            }
            | _policy(node),
            "now": time.time(),
            "sequence": meter.sequence,
            "totals": together["totals"] | {"repeats": meter.repeats, "connections": meter.connections},
            "samples": _samples(each for sequence, each in meter.samples if sequence > since),
            "certificates": {
                "node": _timestamp(node.identity.not_after),
                "ca": _timestamp(node.identity.ca_not_after),
            },
            "peers": together["peers"] | self._at_most_a_second_old(asked, partial(self._find, asked)),
            "events": [_event(each) for each in meter.remembered(since)[:events]],
        }

    def _at_most_a_second_old(self, asked: Asked | None, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        now = time.monotonic()
        kept = self._kept.get(asked)
        if kept is None or now - kept[0] >= KEPT:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            kept = self._kept[asked] = now, find()
        return kept[1]

    def _rows(self) -> list[Row]:
        traffic = self._node.meter.traffic
        return [(pipe, traffic[pipe]) for pipe in self._node.pipes if pipe in traffic and pipe.ready.done()]

    def _together(self) -> dict[str, Any]:
        """Return what there is to tell of all peers together."""
        pipes = [pipe for pipe, _ in self._rows()]
        ends = [pipe.peer.not_after for pipe in pipes if pipe.peer.not_after is not None]
        return {
            "totals": self._node.meter.totals._asdict(),
            "peers": {
                "connected": sum(pipe.available for pipe in pipes),
                "in_flight": sum(pipe.in_flight for pipe in pipes),
                "queued": sum(pipe.queued for pipe in pipes),
                "first_expires": _timestamp(min(ends, default=None)),
            },
        }

    def _find(self, asked: Asked) -> dict[str, Any]:
        """Return the peers that are asked for."""
        rows, wanted = self._rows(), asked.clients
        if wanted:
            rows = [row for row in rows if wanted in row[0].peer.name.lower() or wanted in row[0].peer.address]
        key = _KEYS[asked.sort]
        first = heapq.nsmallest(asked.offset + asked.limit, rows, key=lambda row: (key(row), _by_name(row)))
        return {
            "matching": len(rows),
            "offset": asked.offset,
            "list": [_peer(*row) for row in first[asked.offset :]],
        }


def add_status(app: FastAPI, node: Node) -> None:
    """Add the page, its files, and `/status`."""
    status = Status(node)
    pages = resources.files("restpipe.web") / "pages"

    async def tell(request: Request) -> Response:
        query = request.query_params
        try:
            since, events = number(query, "since", 0, 1 << 60), number(query, "events", MAX_EVENTS, MAX_EVENTS)
            document = status.document(Asked.of(query), since, events)
        except EventError as error:
            return problem_response(error)
        return JSONResponse(document, headers=_HEADERS)

    app.router.routes.append(Route("/status", tell))
    for path, (name, kind) in _FILES.items():
        app.router.routes.append(Route(path, _file((pages / name).read_bytes(), kind)))


def _file(content: bytes, kind: str) -> Callable[[Request], Any]:
    async def send(_request: Request) -> Response:
        # The files are small: asked for each time, they are always those of the version that runs.
        return Response(content, media_type=kind, headers=_HEADERS | {"Content-Security-Policy": _POLICY})

    return send


def _policy(node: Node) -> dict[str, Any]:
    """Return whom a server lets in, and whom it lets reach whom, as of now: a reload changes both."""
    if isinstance(node, ClientNode):
        return {}
    return {"allowed_clients": node.settings.allowed_clients, "relay": node.settings.relay}


def _peer(pipe: Pipe, traffic: Traffic) -> dict[str, Any]:
    peer = pipe.peer
    return {
        "name": peer.name,
        "address": peer.address,
        "software": pipe.ready.result().software[:MAX_TEXT],
        "since": traffic.since,
        "available": pipe.available,
        "round_trip_s": pipe.round_trip,
        "in_flight": pipe.in_flight,
        "queued": pipe.queued,
        "rate": round(traffic.rate, 2),
        "opened": traffic.opened.all,
        "opened_failed": traffic.opened.failed,
        "served": traffic.served.all,
        "served_failed": traffic.served.failed,
        "received": traffic.received,
        "sent": traffic.sent,
        "expires": _timestamp(peer.not_after),
    }


def _samples(samples: Iterable[Sample]) -> dict[str, list[int]]:
    """Return a list for each figure, of the last seconds, the latest at the end."""
    columns = list(zip(*samples, strict=True)) or [()] * len(Sample._fields)
    return {name: list(column) for name, column in zip(Sample._fields, columns, strict=True)}


def _event(event: Remembered) -> dict[str, Any]:
    return event._asdict() | {"seconds": round(event.seconds, 6)}


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.astimezone(UTC).timestamp()
