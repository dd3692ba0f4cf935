"""The event routes: ASGI in front of FastAPI, whose routing alone would cost as much as the rest of a request."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

from restpipe.exceptions import (
    BadAnswerError,
    BadResultError,
    BodyTooLargeError,
    BodyTooSlowError,
    DeadlineError,
    EventError,
    InternalError,
    NoHandlerError,
    PeerRefusedError,
    TooManyExchangesError,
    UnauthorizedError,
)
from restpipe.handlers.dispatch import check_header
from restpipe.handlers.payload import media_type
from restpipe.nodes.exchanges import Exchange, Patience, PipeTo, exchange
from restpipe.nodes.held_bodies import HELD_BODY
from restpipe.pipe import Answer, PipeDepartsError
from restpipe.pipe.request_ids import REQUEST_ID, instance, sane
from restpipe.web.admission import Admission, Place
from restpipe.web.callers import CallerGone, CallerWatch, Receive
from restpipe.web.door import Door
from restpipe.web.health import OPEN_TO_ALL
from restpipe.web.http import UNASKED, WHOLE_RESPONSE
from restpipe.web.problems import ATTEMPTS, CLOSE, RETURN_CODE, RawHeaders, problem
from restpipe.web.request_bodies import Room, Upload, read_whole
from restpipe.web.requests import NOT_FORWARDED, Asked, Scope
from restpipe.web.sockets import Send, WebSocket
from restpipe_pb.v1.pipe_pb2 import Response

log = logging.getLogger(__name__)

App = Callable[[Scope, Receive, Send], Awaitable[None]]
# Finds the way to the peer that the first part of a path names, with its name and the rest of the path.
Route = Callable[[bytes], tuple[str, PipeTo, bytes]]

_DOCUMENT = b"/openapi.json"
EVENT_STREAM = "text/event-stream"
_BODILESS = frozenset((204, 205, 304))
# Has nginx pass on each piece as it comes, and no faster than its client reads: by itself it spools a gigabyte ahead.
_UNBUFFERED = (b"x-accel-buffering", b"no")
_REQUEST_ID = REQUEST_ID.encode()
# There is too much to do, on this node or on the other.
_CROWDED = (PeerRefusedError, TooManyExchangesError)
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class _TellsNothing:
    """A caller of a web server that is not a node's own, until it is asked."""

    disconnected = False
    body = b""


_TELLS_NOTHING = _TellsNothing()


class Gateway:
    """Serves the event routes of a node, and hands everything else to FastAPI.

    Args:
        app: the FastAPI application.
        door: lets requests in.
        prefix: of the event routes, such as b"/client/".
        route: finds the peer.
        patience: how long a request may take unless it says otherwise.
        max_timeout: seconds that a request may ask for.
        max_message: bytes of a message of a web socket.
        admission: bounds the requests that wait for their answers.
        exchange: has a request answered.
        asked: reads what a caller asks for.
    """

    def __init__(
        self,
        app: App,
        *,
        door: Door,
        prefix: bytes,
        route: Route,
        patience: Patience,
        max_timeout: float,
        max_message: int,
        admission: Admission,
        exchange: Exchange = exchange,
        asked: type[Asked] = Asked,
    ) -> None:
        self._app = app
        self._have_answered = exchange
        self._make_asked = asked
        self._door = door
        self._prefix = prefix
        self._route = route
        self._patience = patience
        self._max_timeout = max_timeout
        self._max_message = max_message
        self._admission = admission
        self._callers = CallerWatch()
        self._room = Room()
        # The node's token is for the node; where it has none, the header is for the handler.
        self._kept = NOT_FORWARDED | {b"authorization"} if door.wants_token else NOT_FORWARDED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._door.check(scope["headers"], scope.get("http_version", "1.1"))
        except EventError as error:
            if not isinstance(error, UnauthorizedError) or scope["raw_path"] not in OPEN_TO_ALL:
                await _send_problem(scope, send, error)
                return
        if not scope["raw_path"].startswith(self._prefix):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._serve_web_socket(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload: Upload | None = None
        try:
            peer, pipe_to, asked = self._asked(scope)
            if asked.has_body and (asked.length is None or asked.length > HELD_BODY):
                unasked = scope.get("extensions", {}).get(UNASKED, _TELLS_NOTHING) if asked.expects else None
                upload = Upload(receive, self._room, unasked)
                receive = upload.watch
            answer, attempts = await self._exchange(receive, peer, pipe_to, asked, upload)
        except CallerGone:
            return
        except NoHandlerError as error:
            # Unless the peer has such an event, or such a page behind it, this one is the node's own.
            if scope["raw_path"].endswith(_DOCUMENT):
                await self._app(scope, receive, send)
            else:
                await _send_problem(scope, send, error)
            return
        except EventError as error:
            await _send_problem(scope, send, error)
            return
        except Exception as error:
            log.exception("%s %s failed", scope["method"], ascii(scope["path"]), extra=_named(scope))
            await _send_problem(scope, send, InternalError(f"{type(error).__name__}: {error}"))
            return
        else:
            try:
                await self._send_answer(scope, receive, send, answer, attempts)
            finally:
                answer.close()
        finally:
            if upload is not None:
                upload.close()

    async def _serve_web_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # that the caller wants to connect
        socket = WebSocket(receive, send, self._max_message)
        try:
            peer, pipe_to, asked = self._asked(scope)
            place = Place(self._admission, peer, asked.request_to)
            try:
                with self._callers.watching(receive):
                    answer, attempts = await self._have_answered(
                        pipe_to, place.make_request, socket.upload(), asked.patience
                    )
            finally:
                place.leave()
        except CallerGone:
            return
        except EventError as error:
            await _send_problem(scope, send, error)
            return
        answer.stop_clock()
        try:
            headers = _answer_headers(answer.response, attempts)
            if answer.response.status == 200:
                await socket.accept(answer.response, headers)
                with answer.on_departure(socket.leave):
                    await socket.relay(answer)
            else:
                body = await _whole_body(answer, self._max_message)
                await _refuse_web_socket(send, answer.response.status, headers, body)
        except EventError as error:
            error.instance = error.instance or instance(answer.label)
            await _send_problem(scope, send, error)
        except OSError as error:
            named = _named(scope, answer.label)
            log.debug("the caller of web socket %s left: %s", ascii(scope["path"]), error, extra=named)
        finally:
            answer.close()

    def _asked(self, scope: Scope) -> tuple[str, PipeTo, Asked]:
        peer, pipe_to, rest = self._route(scope["raw_path"][len(self._prefix) :])
        asked = self._make_asked(scope, rest, kept=self._kept, patience=self._patience, max_timeout=self._max_timeout)
        return peer, pipe_to, asked

    async def _exchange(
        self, receive: Receive, peer: str, pipe_to: PipeTo, asked: Asked, upload: Upload | None
    ) -> tuple[Answer, int]:
        patience = asked.patience
        if asked.has_body and upload is None:
            self._admission.check(peer)
            try:
                async with asyncio.timeout(patience.deadline):
                    asked.body = await read_whole(receive)
            except TimeoutError:
                raise BodyTooSlowError(f"the body did not arrive within {patience.deadline:g} s") from None
        make_request = asked.request_for_which_body_waits if upload is not None and asked.expects else asked.request_to
        place = Place(self._admission, peer, make_request)
        try:
            with self._callers.watching(receive):
                return await self._have_answered(pipe_to, place.make_request, upload, patience)
        except DeadlineError as error:
            if upload is None or not upload.awaited:
                raise
            slow = BodyTooSlowError(f"nothing of the body arrived for {patience.deadline:g} s")
            slow.executed, slow.instance = error.executed, error.instance
            raise slow from error
        finally:
            place.leave()

    async def _send_answer(self, scope: Scope, receive: Receive, send: Send, answer: Answer, attempts: int) -> None:
        response = answer.response
        bodiless = scope["method"] == "HEAD" or response.status in _BODILESS
        try:
            headers = _answer_headers(response, attempts)
            body = answer.body.take_now() if answer.body.complete else None
            if body is None and bodiless:
                raise BadAnswerError("the peer's answer has a body where there is none to be")
        except BadAnswerError as error:
            error.instance = instance(answer.label)
            await _send_problem(scope, send, error)
            return
        if body is not None:
            if not bodiless:
                headers.append((b"content-length", b"%d" % len(body)))
            elif response.status == 205:
                headers.append((b"content-length", b"0"))  # RFC 9110 section 15.3.6
            elif response.HasField("body_length") and response.status != 204:
                headers.append((b"content-length", b"%d" % response.body_length))
            await _send_whole(scope, send, response.status, headers, b"" if bodiless else body)
        else:
            await self._send_stream(scope, receive, send, answer, headers)

    async def _send_stream(
        self, scope: Scope, receive: Receive, send: Send, answer: Answer, headers: RawHeaders
    ) -> None:
        response = answer.response
        if response.HasField("body_length"):
            headers.append((b"content-length", b"%d" % response.body_length))
        elif not any(name == _UNBUFFERED[0] for name, _ in headers):
            headers.append(_UNBUFFERED)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        # An event source has no end, and is made for clients that connect again (HTML, section 9.2.3).
        endless = media_type(response.content_type) == EVENT_STREAM and not response.HasField("body_length")
        ends = answer.on_departure(partial(_depart, answer)) if endless else nullcontext()
        try:
            with self._callers.watching(receive), ends:
                async for piece in answer.body:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except CallerGone:
            return
        except PipeDepartsError:
            log.debug("ended the event stream %s: the pipe takes no more", ascii(scope["path"]))
        except EventError as error:
            # Returning without the end of the body makes the server close the connection: the caller sees the break.
            named = _named(scope, answer.label)
            log.warning("the answer to %s %s broke: %s", scope["method"], ascii(scope["path"]), error, extra=named)
            return
        await send({"type": "http.response.body", "body": b""})


def _depart(answer: Answer) -> None:
    answer.body.fail(PipeDepartsError("the pipe takes no new exchanges"))


def _answer_headers(response: Response, attempts: int) -> RawHeaders:
    """Return the headers of an answer, its length apart.

    Raises:
        BadAnswerError: the peer sent what would break the answer apart.
    """
    headers: RawHeaders = [(RETURN_CODE, b"%d" % response.return_code)]
    if response.content_type:
        headers.append((b"content-type", _value(response.content_type)))
    if attempts > 1:
        headers.append((ATTEMPTS, b"%d" % attempts))
    for header in response.headers:
        try:
            check_header(header.name, header.value)
        except BadResultError as error:
            raise BadAnswerError(f"the peer's answer cannot be passed on: {error}") from error
        headers.append((header.name.encode("latin-1"), header.value.encode("latin-1")))
    return headers


def _value(text: str) -> bytes:
    if _UNSAFE.search(text):
        raise BadAnswerError("the peer's answer has a header with control characters")
    return text.encode("latin-1", "replace")


async def _whole_body(answer: Answer, limit: int) -> bytes:
    try:
        return await answer.body.read(limit)
    except BodyTooLargeError as error:
        raise BadAnswerError(f"the answer cannot be used: {error}") from error


async def _send_whole(
    scope: Scope, send: Send, status: int, headers: RawHeaders, body: bytes, *, refused: bool = False
) -> None:
    if WHOLE_RESPONSE in scope.get("extensions", ()):
        await send({"type": WHOLE_RESPONSE, "status": status, "headers": headers, "body": body, "refused": refused})
    else:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _named(scope: Scope, label: str = "") -> dict[str, str]:
    """Return what a log says of which request it speaks."""
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == _REQUEST_ID), "")
    return {"request_id": sane(given) or label}


async def _send_problem(scope: Scope, send: Send, error: EventError) -> None:
    if not error.instance and (request_id := _named(scope)["request_id"]):
        error.instance = instance(request_id)
    status, headers, body = problem(error)
    if scope["type"] == "websocket":
        await _refuse_web_socket(send, status, headers, body)
        return
    body = b"" if scope["method"] == "HEAD" else body
    if CLOSE in headers:
        # uvicorn reads that, of the message of ASGI.
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    else:
        await _send_whole(scope, send, status, headers, body, refused=isinstance(error, _CROWDED))


async def _refuse_web_socket(send: Send, status: int, headers: RawHeaders, body: bytes) -> None:
    """Answer a handshake by HTTP; uvicorn has the extension of ASGI for it."""
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
