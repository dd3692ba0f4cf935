"""An error of one node is the same error at the other."""

import pytest

from restpipe.exceptions import (
    AnswerNotKeptError,
    BadAnswerError,
    BadArgumentsError,
    BadBodyError,
    BadRequestError,
    BadResultError,
    BodyTooLargeError,
    BodyTooSlowError,
    DeadlineError,
    EventError,
    Executed,
    ForbiddenError,
    HandlerError,
    HeadersTooLargeError,
    InternalError,
    KeyReusedError,
    NoHandlerError,
    PeerAbsentError,
    PeerAmbiguousError,
    PeerRefusedError,
    PeerTooOldError,
    PeerUnknownError,
    PipeLostError,
    TooManyExchangesError,
    WrongVerbError,
)
from restpipe.protocol.failures import from_failure, to_failure
from restpipe.protocol.limits import SMALLEST_FRAME
from restpipe_pb.v1.pipe_pb2 import Failure


@pytest.mark.parametrize(
    "kind",
    [
        InternalError,
        NoHandlerError,
        BadArgumentsError,
        BadBodyError,
        BodyTooLargeError,
        ForbiddenError,
        HandlerError,
        PeerRefusedError,
        BadResultError,
        KeyReusedError,
        AnswerNotKeptError,
        PeerUnknownError,
        PeerAmbiguousError,
        PeerAbsentError,
        PeerTooOldError,
        TooManyExchangesError,
        BadRequestError,
        HeadersTooLargeError,
        PipeLostError,
        BadAnswerError,
    ],
)
def test_an_error_crosses_the_pipe_as_what_it_is(kind: type[EventError]) -> None:
    error = from_failure(to_failure(kind("the message", exception_class="KeyError", traceback="the traceback")))
    assert type(error) is kind
    assert (str(error), error.exception_class, error.traceback) == ("the message", "KeyError", "the traceback")


def test_a_wrong_verb_names_the_right_ones_at_the_other_node() -> None:
    error = from_failure(to_failure(WrongVerbError("not under put", allow=("get", "head"))))
    assert isinstance(error, WrongVerbError)
    assert (str(error), error.allow) == ("not under put", ("get", "head"))


@pytest.mark.parametrize("kind", [DeadlineError, NoHandlerError, WrongVerbError])
@pytest.mark.parametrize("executed", ["no", "yes", "unknown"])
def test_whether_it_was_executed_crosses_the_pipe_whatever_the_kind_says(
    kind: type[EventError], executed: Executed
) -> None:
    told = WrongVerbError("told", allow=()) if kind is WrongVerbError else kind("told")
    told.executed = executed
    error = from_failure(to_failure(told))
    assert (type(error), error.executed) == (kind, executed)


def test_of_a_peer_that_does_not_say_whether_it_was_executed_the_kind_tells() -> None:
    assert from_failure(Failure(kind=Failure.DEADLINE)).executed == "unknown"
    assert from_failure(Failure(kind=Failure.RAISED)).executed == "yes"
    assert from_failure(Failure(kind=Failure.NOT_FOUND, executed=99)).executed == "no"  # type: ignore[arg-type]


def test_an_error_that_has_no_kind_of_its_own_is_a_fault_of_the_node() -> None:
    assert to_failure(BodyTooSlowError("slow")).kind == Failure.INTERNAL


def test_a_failure_of_unknown_kind_is_a_fault_of_the_peer() -> None:
    failure = Failure(kind=99, message="from the future")  # type: ignore[arg-type]
    assert type(from_failure(failure)) is InternalError


def test_a_failure_fits_the_smallest_frame_and_keeps_the_end_of_the_traceback() -> None:
    long = 100_000 * "\N{SNOWMAN}"
    failure = to_failure(HandlerError(long, exception_class=long, traceback=long + "KeyError: 'x'"))
    assert failure.ByteSize() < SMALLEST_FRAME - 1000
    assert failure.traceback.endswith("KeyError: 'x'")
    assert failure.message.startswith("\N{SNOWMAN}")


def test_text_that_is_no_utf_8_is_told_as_far_as_it_is() -> None:
    assert "caf" in to_failure(HandlerError("caf\udce9")).message
