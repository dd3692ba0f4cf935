"""Failures as documents: `application/problem+json`, RFC 9457, with what RestPipe adds."""

import traceback as tracebacks
from http import HTTPStatus
from typing import Any

from restpipe.exceptions import Executed, HandlerError
from restpipe.handlers.base import Reply
from restpipe.pipe.request_ids import instance

PROBLEM = "application/problem+json"
# The return code of an answer that tells why a file is not given, or not taken.
FILE_REFUSED = 248


def problem_document(
    kind: str,
    *,
    title: str,
    status: int,
    detail: str,
    executed: Executed,
    retryable: bool,
    exception_class: str,
    traceback: str = "",
) -> dict[str, Any]:
    """Return the document that tells of a failure."""
    return {
        "type": f"urn:restpipe:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "executed": executed,
        "retryable": retryable,
        "exception": {"class": exception_class, "message": detail, "traceback": traceback},
    }


def file_refused(status: int, detail: str, request_id: str, exception_class: str = "FileRefused") -> Reply:
    """Return the answer that says why a file is not given, or not taken."""
    title = HTTPStatus(status).phrase
    kind = f"file-{title.lower().replace(' ', '-')}"
    document = problem_document(
        kind,
        title=title,
        status=status,
        detail=detail,
        executed="yes",
        retryable=False,
        exception_class=exception_class,
    )
    return Reply(document | {"instance": instance(request_id)}, PROBLEM, FILE_REFUSED, status)


def handler_error(error: BaseException, *, send_traceback: bool) -> HandlerError:
    """Return the failure that tells of what a handler raised."""
    shown = "".join(tracebacks.format_exception(error)) if send_traceback else ""
    return HandlerError(_message(error), exception_class=type(error).__name__, traceback=shown)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the handler's exception, and so its text, may be anything
        return "the text of the exception cannot be made"
