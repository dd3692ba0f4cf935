"""Conditional requests and ranges of bytes, RFC 9110 sections 13 and 14: without a file, and without a clock.

Headers are mappings whose names are in lower case.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"[\s,]*{_TAG}(?:\s*,[\s,]*{_TAG})*[\s,]*")
_ONE_TAG = re.compile(_TAG)
# Digits are bounded, as those that Python converts to a number are.
_RANGE = re.compile(r"(?P<first>\d{1,100})-(?P<last>\d{0,100})|-(?P<suffix>\d{1,100})", re.ASCII)
# The last second of the year 9999, the last that a date of HTTP can tell.
_LAST_SECOND = 253402300799


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells two states of a file apart.

    Attributes:
        etag: with its quotes; weak where it begins with W/, as a handler's own may.
        modified: in seconds since 1970; None where it cannot be told.
    """

    etag: str
    modified: int | None

    @property
    def is_strong(self) -> bool:
        """Whether the same ETag means the same bytes."""
        return not self.etag.startswith("W/")

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell them."""
        if self.modified is None:
            return {"etag": self.etag}
        return {"etag": self.etag, "last-modified": formatdate(self.modified, usegmt=True)}


def validators_of(status: os.stat_result, now: float) -> Validators:
    """Return the validators of a file.

    Its ETag changes with the file that bears the name, with its size, and with any write that is at least a tick of the
    file system's clock, a few milliseconds, after the last.

    Args:
        status: of the file.
        now: in seconds since 1970. A later time is not told (RFC 9110 section 8.8.2.1).
    """
    etag = f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'
    modified = min(status.st_mtime_ns // 10**9, int(now))
    return Validators(etag, modified if 0 <= modified <= _LAST_SECOND else None)


def failed_precondition(verb: str, headers: Mapping[str, str], current: Validators | None) -> int | None:
    """Return the status that ends a request whose preconditions do not hold, 304 or 412; None where they do.

    Args:
        verb: lower case.
        headers: of the request.
        current: of what is there now; None for nothing.
    """
    # In the order of RFC 9110 section 13.2.2.
    reads = verb in ("get", "head")
    modified = current.modified if current else None
    if (wanted := headers.get("if-match")) is not None:
        if not _matches(wanted, current, strong=True):
            return 412
    elif _is_after(modified, headers.get("if-unmodified-since")):
        return 412
    if (unwanted := headers.get("if-none-match")) is not None:
        if _matches(unwanted, current, strong=False):
            return 304 if reads else 412
    elif reads and _is_after(modified, headers.get("if-modified-since")) is False:
        return 304
    return None


def requested_range(headers: Mapping[str, str], current: Validators, length: int) -> range | None:
    """Return the one range of bytes that a GET asks for, an empty one where there are no such bytes.

    None stands for all: where no range is asked for, where several are, where what is asked for cannot be read, and
    where `If-Range` says that the file has changed (RFC 9110 sections 13.1.5 and 14.2).

    Args:
        headers: of the request.
        current: of the file.
        length: of the file, in bytes.
    """
    unit, _, asked = headers.get("range", "").partition("=")
    if unit.strip().lower() != "bytes" or not _is_unchanged(headers.get("if-range"), current):
        return None
    parts = [_range(part.strip(), length) for part in asked.split(",") if part.strip()]
    if None in parts or not parts:
        return None
    satisfiable = [part for part in parts if part]
    if len(satisfiable) > 1:
        return None
    return satisfiable[0] if satisfiable else range(0)


def _range(text: str, length: int) -> range | None:
    """Return the bytes that one part of a Range header asks for, None where it is malformed."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    if match["suffix"]:
        return range(max(0, length - int(match["suffix"])), length)
    first = int(match["first"])
    if not match["last"]:
        return range(first, length)
    last = int(match["last"])
    return None if last < first else range(first, min(last + 1, length))


def parse_date(text: str) -> int | None:
    """Return an HTTP date in seconds since 1970, None where it is none (RFC 9110 section 5.6.7)."""
    try:
        date = parsedate_to_datetime(text)
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _matches(listed: str, current: Validators | None, *, strong: bool) -> bool:
    """Whether the file is there and has one of the ETags (RFC 9110 section 8.8.3.2)."""
    if current is None:
        return False
    if listed.strip() == "*":
        return True
    tags = _ONE_TAG.findall(listed) if _TAGS.fullmatch(listed) else []
    if strong:
        return current.is_strong and current.etag in tags
    return current.etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in tags]


def _is_after(modified: int | None, date: str | None) -> bool | None:
    """Whether a time is after a date; None where there is no telling, and the condition is not one."""
    since = None if date is None else parse_date(date)
    return None if modified is None or since is None else modified > since


def _is_unchanged(condition: str | None, current: Validators) -> bool:
    """Whether `If-Range` lets a range be sent: by a strong ETag, or the very date that was told."""
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return current.is_strong and condition == current.etag
    return current.modified is not None and parse_date(condition) == current.modified
