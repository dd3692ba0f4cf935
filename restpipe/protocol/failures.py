"""How an `EventError` crosses the pipe."""

from restpipe.exceptions import (
    AnswerNotKeptError,
    BadAnswerError,
    BadArgumentsError,
    BadBodyError,
    BadRequestError,
    BadResultError,
    BodyTooLargeError,
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
    ServiceUnansweredError,
    ServiceUnreachedError,
    ThreadsBusyError,
    TooManyExchangesError,
    WrongVerbError,
)
from restpipe_pb.v1.pipe_pb2 import Failure

_KINDS: dict[type[EventError], Failure.Kind.ValueType] = {
    InternalError: Failure.INTERNAL,
    NoHandlerError: Failure.NOT_FOUND,
    WrongVerbError: Failure.WRONG_VERB,
    BadArgumentsError: Failure.BAD_ARGUMENTS,
    BadBodyError: Failure.BAD_BODY,
    BodyTooLargeError: Failure.BODY_TOO_LARGE,
    ForbiddenError: Failure.FORBIDDEN,
    HandlerError: Failure.RAISED,
    DeadlineError: Failure.DEADLINE,
    ThreadsBusyError: Failure.BUSY,
    PeerRefusedError: Failure.BUSY,
    BadResultError: Failure.BAD_RESULT,
    ServiceUnreachedError: Failure.UNREACHED,
    ServiceUnansweredError: Failure.UNANSWERED,
    KeyReusedError: Failure.KEY_REUSED,
    AnswerNotKeptError: Failure.ANSWER_NOT_KEPT,
    PeerUnknownError: Failure.UNKNOWN_NODE,
    PeerAmbiguousError: Failure.AMBIGUOUS_NODE,
    PeerAbsentError: Failure.ABSENT,
    PeerTooOldError: Failure.TOO_OLD,
    TooManyExchangesError: Failure.CROWDED,
    BadRequestError: Failure.MALFORMED,
    HeadersTooLargeError: Failure.HEAD_TOO_LARGE,
    PipeLostError: Failure.LOST,
    BadAnswerError: Failure.BAD_ANSWER,
}
_EXECUTED: dict[Executed, Failure.Executed.ValueType] = {
    "no": Failure.NO,
    "yes": Failure.YES,
    "unknown": Failure.UNKNOWN,
}
# Bytes. A failure travels in one envelope, which fits the smallest frame that a peer may be limited to.
_MAX_MESSAGE = 8 * 1024
_MAX_TRACEBACK = 32 * 1024
_CLASSES = {kind: error for error, kind in _KINDS.items()}
_OUTCOMES = {told: executed for executed, told in _EXECUTED.items()}


def to_failure(error: EventError) -> Failure:
    """Turn an error of this node into what its caller is told."""
    return Failure(
        kind=_KINDS.get(type(error), Failure.INTERNAL),
        message=_encoded(str(error))[:_MAX_MESSAGE].decode(errors="ignore"),
        exception_class=_encoded(error.exception_class)[:_MAX_MESSAGE].decode(errors="ignore"),
        # The end of a traceback tells more than its beginning.
        traceback=_encoded(error.traceback)[-_MAX_TRACEBACK:].decode(errors="ignore"),
        allow=error.allow if isinstance(error, WrongVerbError) else (),
        executed=_EXECUTED[error.executed],
        repeatable=isinstance(error, PipeLostError) and error.repeatable,
    )


def _encoded(text: str) -> bytes:
    """Encode what a handler said, also where it names a file whose name is no UTF-8: Python has surrogates for that."""
    return text.encode(errors="backslashreplace")


def from_failure(failure: Failure) -> EventError:
    """Turn what the peer tells into the error that this node raises."""
    kind = _CLASSES.get(failure.kind, InternalError)
    error: EventError
    if kind is WrongVerbError:
        error = WrongVerbError(failure.message, allow=tuple(failure.allow))
    elif kind is DeadlineError:
        error = DeadlineError(failure.message, executed=_OUTCOMES.get(failure.executed, "unknown"))
    else:
        error = kind(failure.message, exception_class=failure.exception_class, traceback=failure.traceback)
    if isinstance(error, PipeLostError):
        error.repeatable = failure.repeatable
    error.executed = _OUTCOMES.get(failure.executed, error.executed)
    return error
