"""Bodies: from bytes to what a handler is given, and from what it returns to bytes."""

import json
from typing import Any

from pydantic_core import from_json, to_jsonable_python

from restpipe.exceptions import BadBodyError, BadResultError

JSON = "application/json"
BINARY = "application/octet-stream"

PostData = tuple[str, Any]
NOTHING: PostData = ("", "")


def media_type(content_type: str) -> str:
    """Return a Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_json(mime_type: str) -> bool:
    """Whether a media type is JSON (RFC 6839 section 3.1)."""
    return mime_type == JSON or (mime_type.startswith("application/") and mime_type.endswith("+json"))


def decode(content_type: str, body: bytes) -> PostData:
    """Return the MIME type and the data of a body: JSON decoded, anything else as bytes.

    Raises:
        BadBodyError: the body is not the JSON that it claims to be.
    """
    if not body:
        return NOTHING
    mime_type = media_type(content_type)
    if is_json(mime_type):
        return mime_type, decode_json(body)
    return mime_type or BINARY, body


def decode_json(body: bytes) -> Any:
    """Decode JSON.

    Raises:
        BadBodyError: it is not JSON. The message says where.
    """
    try:
        return from_json(body, allow_inf_nan=False)  # orjson would round integers beyond 64 bits
    except ValueError as error:
        raise BadBodyError(f"the body is not JSON: {error}") from error


# The layout of RestPipe 0.2's answers, with a space after colons and commas, which orjson cannot produce.
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=to_jsonable_python).encode


def encode_json(data: Any) -> bytes:
    """Encode as JSON: what the json module knows, and pydantic models, dataclasses, dates, UUIDs, sets and the like.

    Raises:
        BadResultError: it cannot be encoded.
    """
    try:
        return _json_text(data).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResultError(f"the result cannot be encoded as JSON: {error}") from error


def _json_text(data: Any) -> str:
    try:
        return _encode_json(data)
    except TypeError:  # of all keys the encoder knows text and numbers only, and does not ask for a default
        return _encode_json(to_jsonable_python(data))


def encode(data: Any, mime_type: str | None) -> tuple[str, bytes]:
    """Return the Content-Type and the bytes of a handler's data; of None, no bytes.

    Raises:
        BadResultError: it cannot be encoded as that type.
    """
    if data is None:
        return mime_type or "", b""
    if isinstance(data, bytes | bytearray | memoryview):
        return mime_type or BINARY, bytes(data)
    if mime_type is None or is_json(media_type(mime_type)):
        return mime_type or JSON, encode_json(data)
    if not isinstance(data, str):
        raise BadResultError(f"{mime_type} data is bytes or str, not {type(data).__name__}")
    if mime_type.startswith("text/") and "charset" not in mime_type:
        mime_type += "; charset=utf-8"
    return mime_type, encode_text(data)


def encode_text(text: str) -> bytes:
    """Encode as UTF-8.

    Raises:
        BadResultError: the text has lone surrogates.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadResultError(f"the text cannot be encoded as UTF-8: {error}") from error
