"""Every error is an answer: status, return code, headers, and a document that two readers understand."""

import json

import pytest

from restpipe import exceptions
from restpipe.exceptions import DeadlineError, EventError, HandlerError, UnauthorizedError, WrongVerbError
from restpipe.web.problems import problem

# Class, status, X-Event-Return-Code, executed, retryable.
TABLE = [
    ("PeerAbsentError", 503, 245, "no", True),
    ("PeerRefusedError", 503, 245, "no", True),
    ("ThreadsBusyError", 503, 245, "no", True),
    ("TooManyExchangesError", 503, 249, "no", True),
    ("PeerUnknownError", 404, 254, "no", False),
    ("PeerAmbiguousError", 409, 254, "no", False),
    ("PeerTooOldError", 501, 245, "no", False),
    ("PipeLostError", 502, 246, "unknown", False),
    ("DeadlineError", 504, 247, "unknown", False),
    ("ServiceUnreachedError", 502, 245, "no", True),
    ("ServiceUnansweredError", 502, 246, "unknown", False),
    ("BadAnswerError", 502, 246, "yes", False),
    ("AnswerNotKeptError", 502, 246, "yes", False),
    ("NoHandlerError", 404, 255, "no", False),
    ("BadRequestError", 400, 252, "no", False),
    ("BadArgumentsError", 400, 252, "no", False),
    ("BadBodyError", 400, 252, "no", False),
    ("HeadersTooLargeError", 431, 249, "no", False),
    ("BodyTooLargeError", 413, 249, "no", False),
    ("BodyTooSlowError", 408, 249, "no", False),
    ("HeadTooSlowError", 408, 249, "no", False),
    ("SlashMissingError", 308, 252, "no", False),
    ("KeyReusedError", 422, 252, "no", False),
    ("MisdirectedError", 421, 253, "no", False),
    ("ForbiddenError", 403, 253, "no", False),
    ("UnauthorizedError", 401, 253, "no", False),
    ("HandlerError", 500, 251, "yes", False),
    ("BadResultError", 500, 251, "yes", False),
    ("InternalError", 500, 250, "unknown", False),
]


def answer(error: EventError) -> tuple[int, dict[bytes, bytes], dict[str, object]]:
    status, headers, body = problem(error)
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    assert dict(headers)[b"content-type"] == b"application/problem+json"
    return status, dict(headers), json.loads(body)


@pytest.mark.parametrize(("name", "status", "code", "executed", "retryable"), TABLE, ids=[row[0] for row in TABLE])
def test_every_error_has_its_row_of_the_table(
    name: str, status: int, code: int, executed: str, retryable: bool
) -> None:
    error: EventError = getattr(exceptions, name)("what happened")
    answered, headers, document = answer(error)
    assert answered == status
    assert headers[b"x-event-return-code"] == str(code).encode()
    assert document == {
        "type": document["type"],
        "title": error.title,
        "status": status,
        "detail": "what happened",
        "executed": executed,
        "retryable": retryable,
        "exception": {"class": name, "message": "what happened", "traceback": ""},
    }
    assert (b"retry-after" in headers) is (status == 503)
    assert (b"www-authenticate" in headers) is (status == 401)


def test_no_error_that_can_be_an_answer_is_missing_above() -> None:
    concrete = {
        name
        for name, cls in vars(exceptions).items()
        if isinstance(cls, type) and issubclass(cls, EventError) and cls not in (EventError, exceptions.NotSentError)
    }
    assert concrete == {row[0] for row in TABLE} | {"WrongVerbError"}


def test_types_are_urns_that_name_the_kind() -> None:
    types = [answer(getattr(exceptions, row[0])("x"))[2]["type"] for row in TABLE]
    assert len(set(types)) == len(types)
    assert {"urn:restpipe:peer-absent", "urn:restpipe:too-many-exchanges", "urn:restpipe:internal"} <= set(types)


def test_a_wrong_verb_names_the_right_ones() -> None:
    status, headers, _ = answer(WrongVerbError("x", allow=("post", "get")))
    assert status == 405
    assert sorted(headers[b"allow"].split(b", ")) == [b"GET", b"POST"]


def test_what_a_peer_allows_beside_verbs_is_left_out_of_the_headers() -> None:
    _, headers, _ = answer(WrongVerbError("x", allow=("get", "x\r\nset-cookie: evil", "\u0411")))
    assert headers[b"allow"] == b"GET"


def test_a_deadline_that_passed_before_the_request_was_sent_says_so() -> None:
    assert answer(DeadlineError("x", executed="no"))[2]["executed"] == "no"


def test_the_exchange_is_the_instance() -> None:
    error = HandlerError("x")
    error.instance = "urn:restpipe:request:alpha:7"
    assert answer(error)[2]["instance"] == "urn:restpipe:request:alpha:7"


def test_the_handlers_exception_is_shown_by_class_message_and_traceback() -> None:
    document = answer(HandlerError("no é \r\n \x00", exception_class="KeyError", traceback="Traceback ..."))[2]
    assert document["exception"] == {"class": "KeyError", "message": "no é \r\n \x00", "traceback": "Traceback ..."}
    assert document["detail"] == "no é \r\n \x00"


def test_text_that_is_no_unicode_is_an_answer_too() -> None:
    assert answer(HandlerError("\udcff"))[0] == 500


def test_each_way_to_show_the_token_has_a_header_of_its_own() -> None:
    # Chromium asks for no password where Basic stands behind Bearer in one header.
    _, headers, _ = problem(UnauthorizedError("no token"))
    challenges = [value for name, value in headers if name == b"www-authenticate"]
    assert challenges == [b'Bearer realm="restpipe"', b'Basic realm="restpipe"']
