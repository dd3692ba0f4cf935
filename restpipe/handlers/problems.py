"""Failures as documents: `application/problem+json`, RFC 9457, with what RestPipe adds."""

from http import HTTPStatus
from typing import Any

from restpipe.exceptions import Executed
from restpipe.handlers.base import Reply

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


def file_refused(status: int, detail: str, exception_class: str = "FileRefused") -> Reply:
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
    return Reply(document, PROBLEM, FILE_REFUSED, status)
