"""`raise_for_exception` tells failures from answers, for requests and httpx alike."""

import json
from typing import Any

import httpx
import pytest
import requests
from requests.structures import CaseInsensitiveDict

from restpipe import PipeFailError, raise_for_exception
from restpipe.exceptions import EventError, HandlerError, PeerAbsentError, PipeLostError
from restpipe.responses import HttpResponse
from restpipe.web.problems import problem


def of_httpx(status: int, headers: dict[str, str], body: bytes) -> HttpResponse:
    return httpx.Response(status, headers=headers, content=body)


def of_requests(status: int, headers: dict[str, str], body: bytes) -> HttpResponse:
    response = requests.Response()
    response.status_code = status
    response.headers = CaseInsensitiveDict(headers)
    response._content = body
    return response


both = pytest.mark.parametrize("make", [of_httpx, of_requests])


def failure(make: Any, error: EventError, *, head: bool = False) -> PipeFailError:
    """Return what is raised for the answer that tells of an error."""
    status, raw, body = problem(error)
    headers = {name.decode(): value.decode() for name, value in raw}
    with pytest.raises(PipeFailError) as caught:
        raise_for_exception(make(status, headers, b"" if head else body))
    return caught.value


@both
def test_the_handlers_exception_is_raised_with_its_class_message_and_traceback(make: Any) -> None:
    raised = failure(make, HandlerError("there is none", exception_class="LookupError", traceback="Traceback ..."))
    assert str(raised) == "LookupError: there is none"
    assert raised.error_class_name == "LookupError"
    assert raised.error_message == "there is none"
    assert raised.error_traceback == "Traceback ..."
    assert (raised.return_code, raised.status, raised.executed, raised.retryable) == (251, 500, "yes", False)


@both
def test_the_caller_learns_what_is_safe_to_repeat(make: Any) -> None:
    absent, lost = failure(make, PeerAbsentError("away")), failure(make, PipeLostError("gone"))
    assert (absent.executed, absent.retryable) == ("no", True)
    assert (lost.executed, lost.retryable) == ("unknown", False)


@both
def test_a_failure_of_head_which_has_no_body_is_raised_too(make: Any) -> None:
    raised = failure(make, PeerAbsentError("away"), head=True)
    assert (raised.return_code, raised.status, raised.executed) == (245, 503, "unknown")
    assert raised.error_message


@both
@pytest.mark.parametrize("status", [200, 204, 404, 500])
@pytest.mark.parametrize("code", ["0", "7", "251"])
def test_what_a_handler_answers_is_none_whatever_its_status_and_code(make: Any, status: int, code: str) -> None:
    for mime_type, body in (
        ("application/json", b'{"exception": {"class": "X"}}'),
        ("text/plain", b"x"),
        ("application/problem+json", b'{"title": "a problem of the handler\'s own"}'),
    ):
        raise_for_exception(make(status, {"X-Event-Return-Code": code, "Content-Type": mime_type}, body))


@both
@pytest.mark.parametrize("headers", [{}, {"X-Event-Return-Code": "many"}, {"Content-Type": "application/problem+json"}])
def test_an_error_of_something_in_front_of_the_node_is_raised_as_such(make: Any, headers: dict[str, str]) -> None:
    with pytest.raises(PipeFailError, match="something in front of the node") as caught:
        raise_for_exception(make(502, headers, b"<html>"))
    assert (caught.value.return_code, caught.value.status, caught.value.executed) == (None, 502, "unknown")


@both
def test_what_is_no_error_is_none(make: Any) -> None:
    raise_for_exception(make(200, {}, b"<html>"))
    raise_for_exception(make(304, {}, b""))


@both
@pytest.mark.parametrize("body", [b'{"exception": {"cla', b"[]", b"\xff"])
def test_a_failure_whose_document_cannot_be_read_is_raised_nevertheless(make: Any, body: bytes) -> None:
    headers = {"X-Event-Return-Code": "251", "Content-Type": "application/problem+json"}
    with pytest.raises(PipeFailError) as caught:
        raise_for_exception(make(500, headers, body))
    assert (caught.value.return_code, caught.value.status) == (251, 500)


@both
def test_a_document_with_parts_missing_is_raised_with_what_there_is(make: Any) -> None:
    headers = {"X-Event-Return-Code": "251", "Content-Type": "application/problem+json; charset=utf-8"}
    with pytest.raises(PipeFailError) as caught:
        raise_for_exception(make(500, headers, json.dumps({"exception": {"message": "half"}}).encode()))
    assert caught.value.error_message == "half"
    assert caught.value.error_class_name == ""
