"""From the raw path of a URL to the noun and the arguments of an event.

The raw path, because a decoded one has lost the difference between a slash and %2F.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from restpipe.exceptions import BadRequestError

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# More parameters than any handler takes; a bound on the work that a query can cause.
MAX_QUERY_PARAMETERS = 1000


class EventPath(NamedTuple):
    """What a path asks for.

    Attributes:
        noun: parts joined by slashes, decoded.
        arguments: positional ones, decoded.
    """

    noun: str
    arguments: list[str]


def parse_event_path(raw: bytes) -> EventPath:
    """Split `cat//hello%20/world` into noun and arguments.

    Left of the first `//` stands the noun, right of it the arguments, separated by slashes and decoded one by one:
    `cat//` passes one empty argument, `cat` none.

    Raises:
        BadRequestError: it is not percent-encoded UTF-8.
    """
    noun, separator, arguments = raw.partition(b"//")
    decoded = [decode(argument) for argument in arguments.split(b"/")] if separator else []
    return EventPath(decode(noun.strip(b"/")), decoded)


def as_target(path: bytes, query: bytes) -> str:
    """Return the path and the query of a request as its target (RFC 9112 section 3.2.1)."""
    return in_ascii(b"/%b?%b" % (path, query) if query else b"/" + path)


def target_of(noun: str, arguments: Iterable[str], query: Iterable[tuple[str, str]]) -> str:
    """Return what names an event as the target of a request to an HTTP service."""
    target = "/" + quote(noun.lstrip("/"))
    for argument in arguments:
        target = f"{target.rstrip('/')}/{quote(argument, safe='')}"
    encoded = urlencode(list(query))
    return f"{target}?{encoded}" if encoded else target


def in_ascii(raw: bytes) -> str:
    """Percent-encode octets that belong in no URL and that some clients send; all others stay as they are."""
    if raw.isascii():
        return raw.decode()
    return "".join(chr(octet) if octet < 0x80 else f"%{octet:02X}" for octet in raw)


def decode(raw: bytes) -> str:
    """Percent-decode a part of a path.

    Raises:
        BadRequestError: it is not percent-encoded UTF-8, or has a NUL.
    """
    try:
        if b"%" not in raw:
            return raw.decode("utf-8")
        if _BAD_ESCAPE.search(raw):
            raise BadRequestError(f"{raw.decode('latin-1')!a} has a % that is not followed by two hex digits")
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequestError(f"{raw.decode('latin-1')!a} is not percent-encoded UTF-8") from error
    if "\0" in text:
        raise BadRequestError("a path has no NUL")
    return text


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Decode a query, repeats and empty values kept.

    Raises:
        BadRequestError: it is not percent-encoded UTF-8, or has too many parameters.
    """
    try:
        return parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_PARAMETERS
        )
    except UnicodeDecodeError as error:
        raise BadRequestError("the query is not percent-encoded UTF-8") from error
    except ValueError as error:
        raise BadRequestError(f"the query has more than {MAX_QUERY_PARAMETERS} parameters") from error
