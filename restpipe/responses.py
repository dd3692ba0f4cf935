"""For programs that call a node over HTTP: from its answer to an exception."""

from collections.abc import Mapping
from typing import Any, Protocol

from restpipe.exceptions import PipeFailError


class HttpResponse(Protocol):
    """What `requests.Response` and `httpx.Response` have in common."""

    @property
    def status_code(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, looked up whatever their case."""

    @property
    def text(self) -> str:
        """The body, decoded."""

    def json(self) -> Any:
        """The body, parsed as JSON."""


def raise_for_exception(response: HttpResponse) -> None:
    """Raise where a node's answer tells of a failure, in the handler or on the way; return where it does not.

    An answer that the handler made is none, whatever its status and return code. An error status that does not come
    from RestPipe, such as a proxy's, is one.

    Args:
        response: of `requests` or `httpx`.

    Raises:
        PipeFailError: the event did not succeed.
    """
    code = _number(response.headers.get("X-Event-Return-Code"))
    if code is not None and response.headers.get("Content-Type", "").startswith("application/problem+json"):
        document = _document(response)
        exception = document.get("exception")
        if isinstance(exception, dict) or not document:  # the answer to HEAD has no body
            exception = exception or {"class": "PipeFailError", "message": f"status {response.status_code}"}
            raise PipeFailError(
                str(exception.get("message", "")),
                error_class_name=str(exception.get("class", "")),
                error_traceback=str(exception.get("traceback", "")),
                return_code=code,
                status=response.status_code,
                executed=document.get("executed", "unknown"),
                retryable=bool(document.get("retryable", False)),
            )
    if code is None and response.status_code >= 400:
        raise PipeFailError(
            f"status {response.status_code} from something in front of the node",
            error_class_name="HTTPError",
            error_traceback="",
            return_code=None,
            status=response.status_code,
            executed="unknown",
            retryable=False,
        )


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _document(response: HttpResponse) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
