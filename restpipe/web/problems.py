"""From an `EventError` to its HTTP answer: `application/problem+json`, RFC 9457."""

import json

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from restpipe.exceptions import (
    BodyTooSlowError,
    EventError,
    NotSentError,
    SlashMissingError,
    UnauthorizedError,
    WrongVerbError,
)
from restpipe.handlers.events import VERBS
from restpipe.handlers.problems import PROBLEM, problem_document

RETURN_CODE = b"x-event-return-code"
ATTEMPTS = b"x-event-attempts"
CLOSE = (b"connection", b"close")

RawHeaders = list[tuple[bytes, bytes]]


def problem(error: EventError) -> tuple[int, RawHeaders, bytes]:
    """Return status, headers and body of the answer that tells of `error`."""
    document = problem_document(
        _slug(type(error).__name__),
        title=error.title,
        status=error.status,
        detail=str(error),
        executed=error.executed,
        retryable=error.retryable,
        exception_class=error.exception_class,
        traceback=error.traceback,
    )
    if error.instance:
        document["instance"] = error.instance
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", b"%d" % len(body)),
        (RETURN_CODE, b"%d" % error.return_code),
    ]
    if error.attempts > 1:
        headers.append((ATTEMPTS, b"%d" % error.attempts))
    if isinstance(error, WrongVerbError):
        # Of what the peer tells, only verbs: anything else might break the answer apart.
        headers.append((b"allow", ", ".join(verb for verb in VERBS if verb in error.allow).upper().encode()))
    elif isinstance(error, NotSentError) and error.status == 503:
        headers.append((b"retry-after", b"1"))
    elif isinstance(error, SlashMissingError):
        headers.append((b"location", error.location.encode()))
    elif isinstance(error, BodyTooSlowError):
        headers.append(CLOSE)  # RFC 9110 section 15.5.9
    elif isinstance(error, UnauthorizedError):
        # Basic, with the token as password, lets browsers ask for it: by a header of its own, for Chromium reads none
        # but the first challenge of a list.
        headers += [(b"www-authenticate", scheme + b' realm="restpipe"') for scheme in (b"Bearer", b"Basic")]
    return error.status, headers, body


def last_answer(error: EventError) -> bytes:
    """Return the answer that tells of `error`, as it is written on a connection that is closed then."""
    status, headers, body = problem(error)
    lines = [name + b": " + value + b"\r\n" for name, value in [*headers, CLOSE]]
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])


def problem_response(error: EventError) -> Response:
    """Return the answer of a page that tells of `error`."""
    status, headers, body = problem(error)
    response = Response(body, status)
    response.raw_headers = headers
    return response


def _slug(class_name: str) -> str:
    """Turn `PeerAbsentError` into `peer-absent`."""
    name = class_name.removesuffix("Error")
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
