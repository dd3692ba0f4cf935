"""Request ids and trace contexts: what ties together the traces that one request leaves on several nodes.

Both travel as headers. A request without an id is named by its exchange, which both ends of a pipe know: that costs
nothing until somebody asks.
"""

import re

from restpipe_pb.v1.pipe_pb2 import Request

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"

_INSTANCE = "urn:restpipe:request:"
# What goes into logs, documents and URNs as it is.
_SANE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:/+=@-]{0,127}")
# W3C Trace Context section 3.2: later versions may say more, version ff and ids of zeros are none.
_TRACE_CONTEXT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-[!-~]{0,200})?"
)


def request_id(request: Request, label: str) -> str:
    """Return the id of a request: what its X-Request-ID says, if that is sane, or the label of its exchange."""
    return sane(_header(request, REQUEST_ID)) or label


def traceparent(request: Request) -> str:
    """Return the W3C trace context that a request came with, "" where it has none."""
    value = _header(request, TRACEPARENT)
    found = _TRACE_CONTEXT.fullmatch(value)
    return value if found and not (found["more"] and value.startswith("00")) else ""


def sane(request_id: str) -> str:
    """Return an id that a caller chose, or "" where it is too long or has characters that ids do not have."""
    return request_id if _SANE.fullmatch(request_id) else ""


def instance(request_id: str) -> str:
    """Return what identifies the occurrence of a problem (RFC 9457 section 3.1.5)."""
    return f"{_INSTANCE}{request_id}"


def id_of_instance(instance: str) -> str:
    """Return the request's id of what `instance` returned, "" of anything else."""
    return instance.removeprefix(_INSTANCE) if instance.startswith(_INSTANCE) else ""


def _header(request: Request, name: str) -> str:
    for header in request.headers:
        if header.name == name:
            return header.value
    return ""
