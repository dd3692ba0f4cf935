"""Every exception of RestPipe.

    RestPipeError
    ├── ConfigError                  a setting is wrong; the node does not start
    ├── IdentityError                a key or a certificate is wrong
    ├── ConnectError                 a pipe could not be made
    ├── ProtocolError                a peer broke the protocol
    ├── PipeFailError                raised by `raise_for_exception` from an HTTP answer
    └── EventError                   an event that did not succeed; knows its answer
        ├── NotSentError             it never left this node: safe to repeat
        │   ├── PeerAbsentError          the peer is not connected
        │   ├── PeerRefusedError         the peer refused it unprocessed
        │   │   └── ThreadsBusyError         its handler threads are all busy
        │   ├── PeerTooOldError          the peer's software cannot do it
        │   ├── ServiceUnreachedError    the HTTP service behind the peer was not reached
        │   ├── TooManyExchangesError    a limit on exchanges in flight is reached
        │   ├── PeerUnknownError         the name leads to no client
        │   └── PeerAmbiguousError       the name leads to several clients
        ├── PipeLostError            the pipe ended after it was sent: outcome unknown
        ├── ServiceUnansweredError   the HTTP service behind the peer did not answer: outcome unknown
        ├── DeadlineError            the deadline passed
        ├── BadAnswerError           the peer's answer cannot be used
        ├── AnswerNotKeptError       a repeat of what was executed, whose answer was not kept
        ├── NoHandlerError           no method serves this noun
        │   └── WrongVerbError           it is served under other verbs
        ├── BadRequestError          a request that cannot be read
        │   ├── BadArgumentsError        the arguments do not fit the handler
        │   ├── BadBodyError             the body is not what it says
        │   ├── HeadersTooLargeError     the header section is over the limit
        │   ├── BodyTooLargeError        the body is over the limit
        │   ├── BodyTooSlowError         the body did not arrive in time
        │   ├── HeadTooSlowError         the head did not arrive in time
        │   ├── SlashMissingError        the path of an HTTP service without the slash that ends it
        │   ├── KeyReusedError           the Idempotency-Key belongs to another request
        │   └── MisdirectedError         `Host` is none of the node's names
        ├── ForbiddenError           the caller may not do this
        │   └── UnauthorizedError        no token, or the wrong one
        ├── HandlerError             the handler raised
        │   └── BadResultError           it returned what cannot be sent
        └── InternalError            a bug in RestPipe

An `EventError` is the one place where a failure and its answer meet: its class says the HTTP status, the return code,
and whether the handler ran. It crosses the pipe as a `Failure` and becomes `application/problem+json` (RFC 9457) in
`web`.
"""

from typing import ClassVar, Literal

Executed = Literal["no", "yes", "unknown"]


class RestPipeError(Exception):
    """Base of every exception that RestPipe raises on purpose."""


class ConfigError(RestPipeError):
    """A setting is wrong. The message names the variable, a line for each fault."""


class IdentityError(RestPipeError):
    """A key, a certificate or a CA certificate cannot be used. The message names the file and the way out."""


class ConnectError(RestPipeError):
    """A pipe could not be made. The message is the cause in one line."""


class ProtocolError(RestPipeError):
    """The peer broke a rule of the protocol. The message names the envelope and the rule."""


class PipeFailError(RestPipeError):
    """An HTTP answer that reports a failure, raised by `restpipe.raise_for_exception`.

    Attributes:
        error_message: what the failing side said.
        error_traceback: traceback of the handler, empty where it was not sent.
        error_class_name: class of the exception that the handler, or RestPipe, raised.
        return_code: the `X-Event-Return-Code` of the answer; None where the answer is not RestPipe's.
        status: HTTP status of the answer.
        executed: whether the handler ran: "no", "yes" or "unknown".
        retryable: whether the same request may succeed later and is safe to send again.
    """

    def __init__(
        self,
        error_message: str,
        *,
        error_class_name: str,
        error_traceback: str,
        return_code: int | None,
        status: int,
        executed: Executed,
        retryable: bool,
    ) -> None:
        super().__init__(f"{error_class_name}: {error_message}")
        self.error_message = error_message
        self.error_traceback = error_traceback
        self.error_class_name = error_class_name
        self.return_code = return_code
        self.status = status
        self.executed = executed
        self.retryable = retryable


class EventError(RestPipeError):
    """An event that did not succeed.

    Attributes:
        status: HTTP status of its answer.
        return_code: `X-Event-Return-Code` of its answer.
        title: what kind of failure it is, in a few words.
        executed: whether the handler ran.
        retryable: whether sending the same request again is safe and may succeed.
        exception_class: name of the exception's class that the caller is shown.
        traceback: the handler's traceback, where it is disclosed.
        instance: the exchange that failed, "" where there was none.
        attempts: how often the request was sent.
    """

    status: ClassVar[int]
    return_code: ClassVar[int]
    title: ClassVar[str]
    executed: Executed = "no"
    retryable: bool = False

    def __init__(self, message: str, *, exception_class: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.exception_class = exception_class or type(self).__name__
        self.traceback = traceback
        self.instance = ""
        self.attempts = 0


class NotSentError(EventError):
    """The request never left this node, or was refused unprocessed."""

    status = 503
    return_code = 245
    title = "Never sent"
    retryable = True


class PeerAbsentError(NotSentError):
    """The peer is not connected, and did not connect in time."""

    title = "Peer not connected"


class PeerRefusedError(NotSentError):
    """The peer is draining, or refused the exchange before anything of it was done."""

    title = "Peer refused the request unprocessed"


class ThreadsBusyError(PeerRefusedError):
    """No handler thread is free, nor would be soon. Callers see a `PeerRefusedError`."""


class PeerTooOldError(NotSentError):
    """The software of the server, or of the other client, is too old to pass requests from one client to another."""

    status = 501
    title = "Peer too old"
    retryable = False


class ServiceUnreachedError(NotSentError):
    """The HTTP service that the peer passes requests on to cannot be connected to."""

    status = 502
    title = "Service not reached"


class TooManyExchangesError(NotSentError):
    """A limit on exchanges in flight is reached."""

    return_code = 249
    title = "Too many exchanges in flight"


class PeerUnknownError(NotSentError):
    """The name is neither a client's nor does it resolve to one."""

    status = 404
    return_code = 254
    title = "No such client"
    retryable = False


class PeerAmbiguousError(NotSentError):
    """The name resolves to several clients. The message lists their certificate names."""

    status = 409
    return_code = 254
    title = "Several clients match"
    retryable = False


class PipeLostError(EventError):
    """The pipe ended after the request was sent and before its answer was complete.

    Attributes:
        repeatable: a server that passed the request on lost the pipe to the client that it was for, and permits that
            the request is sent again.
    """

    status = 502
    return_code = 246
    title = "Pipe lost, outcome unknown"
    executed = "unknown"
    repeatable = False


class ServiceUnansweredError(EventError):
    """The HTTP service that the peer passed the request on to did not answer, or with what is no HTTP."""

    status = 502
    return_code = 246
    title = "Service did not answer, outcome unknown"
    executed = "unknown"


class DeadlineError(EventError):
    """The deadline of the exchange passed. The message says whether the request had been sent."""

    status = 504
    return_code = 247
    title = "Deadline passed"

    def __init__(self, message: str, *, executed: Executed = "unknown") -> None:
        super().__init__(message)
        self.executed = executed
        self.retryable = executed == "no"


class BadAnswerError(EventError):
    """The peer's answer is malformed, or larger than the caller takes."""

    status = 502
    return_code = 246
    title = "Unusable answer"
    executed = "yes"


class AnswerNotKeptError(EventError):
    """A request with this Idempotency-Key was executed before, and its answer was not kept."""

    status = 502
    return_code = 246
    title = "Executed before, answer not kept"
    executed = "yes"


class NoHandlerError(EventError):
    """No method of the event handler serves this noun. The message names the method looked for."""

    status = 404
    return_code = 255
    title = "No such event"


class WrongVerbError(NoHandlerError):
    """The noun is served, under other verbs.

    Attributes:
        allow: the verbs that serve it, lower case.
    """

    status = 405
    title = "Verb not served"

    def __init__(self, message: str, *, allow: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allow = allow


class BadRequestError(EventError):
    """The request cannot be read."""

    status = 400
    return_code = 252
    title = "Malformed request"


class BadArgumentsError(BadRequestError):
    """The arguments do not fit the handler. The message names the argument."""

    title = "Arguments do not fit"


class BadBodyError(BadRequestError):
    """The body is not what its content type says. The message says where."""

    title = "Malformed body"


class HeadersTooLargeError(BadRequestError):
    """The header section is larger than a request's may be. The message names the limit."""

    status = 431
    return_code = 249
    title = "Header section too large"


class BodyTooLargeError(BadRequestError):
    """The body is larger than the handler takes. The message names the limit."""

    status = 413
    return_code = 249
    title = "Body too large"


class BodyTooSlowError(BadRequestError):
    """The body did not arrive, or did not go on, before the deadline."""

    status = 408
    return_code = 249
    title = "Body too slow"


class HeadTooSlowError(BadRequestError):
    """The target and the headers did not arrive in time."""

    status = 408
    return_code = 249
    title = "Head too slow"


class SlashMissingError(BadRequestError):
    """The path names a client that passes requests on to an HTTP service, whose own paths begin after a slash.

    Attributes:
        location: of the service, relative to the path of the request.
    """

    status = 308
    title = "Slash missing"

    def __init__(self, message: str, *, location: str = "") -> None:
        super().__init__(message)
        self.location = location


class KeyReusedError(BadRequestError):
    """The Idempotency-Key was used for another request."""

    status = 422
    title = "Idempotency-Key of another request"


class MisdirectedError(BadRequestError):
    """`Host` is none of the node's names: a DNS rebinding attack, or a name missing from the settings."""

    status = 421
    return_code = 253
    title = "Misdirected request"


class ForbiddenError(EventError):
    """The caller may not do this."""

    status = 403
    return_code = 253
    title = "Not allowed"


class UnauthorizedError(ForbiddenError):
    """The bearer token is missing or wrong."""

    status = 401
    title = "Token required"


class HandlerError(EventError):
    """The handler raised. `exception_class` and the message are its exception's."""

    status = 500
    return_code = 251
    title = "The event handler raised"
    executed = "yes"


class BadResultError(HandlerError):
    """The handler returned what cannot be sent."""

    title = "Unusable result"


class InternalError(EventError):
    """A bug in RestPipe itself."""

    status = 500
    return_code = 250
    title = "Internal error"
    executed = "unknown"
