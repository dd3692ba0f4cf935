"""Preconditions and ranges are decided as RFC 9110 has it, whatever the headers say."""

import os
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restpipe.handlers.conditional import (
    Validators,
    failed_precondition,
    parse_date,
    requested_range,
    validators_of,
)

TAG = '"1-2-3"'
THEN = 784111777
BEFORE, AT, AFTER = (formatdate(THEN + d, usegmt=True) for d in (-1, 0, 1))
CURRENT = Validators(TAG, THEN)


def failed(verb: str = "get", current: Validators | None = CURRENT, **headers: str) -> int | None:
    return failed_precondition(verb, {name.replace("_", "-"): value for name, value in headers.items()}, current)


def chosen(text: str, length: int = 1000, **headers: str) -> range | None:
    return requested_range({"range": text, **{n.replace("_", "-"): v for n, v in headers.items()}}, CURRENT, length)


# Dates


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_a_date_is_read_in_each_of_the_three_formats(text: str) -> None:
    assert parse_date(text) == THEN


@given(st.text() | st.from_regex(r"\w{3}, \d+ (Nov|Jan) \d+ \d+:\d+:\d+ (GMT|[+-]\d+)", fullmatch=True))
def test_whatever_stands_for_a_date_is_a_date_or_none(text: str) -> None:
    assert parse_date(text) is None or isinstance(parse_date(text), int)


@given(st.integers(0, 253402300799))
def test_a_date_that_is_told_is_read_back(seconds: int) -> None:
    assert parse_date(Validators(TAG, seconds).headers["last-modified"]) == seconds


# Validators


def test_the_etag_tells_a_file_that_was_replaced_and_one_that_was_written_to(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(b"one")
    other.write_bytes(b"two")
    os.utime(file, ns=(5, 5))
    os.utime(other, ns=(5, 5))
    etags = [validators_of(file.stat(), 9).etag, validators_of(other.stat(), 9).etag]
    os.utime(file, ns=(5, 6))
    etags.append(validators_of(file.stat(), 9).etag)
    file.write_bytes(b"longer")
    os.utime(file, ns=(5, 6))
    etags.append(validators_of(file.stat(), 9).etag)
    assert len(set(etags)) == 4


@pytest.mark.parametrize(("mtime", "told"), [(7, 7), (9, 9), (10, 9), (-1, None), (10**12, 9)])
def test_no_date_is_told_that_is_in_the_future_or_cannot_be_told(tmp_path: Path, mtime: int, told: int | None) -> None:
    file = tmp_path / "file"
    file.touch()
    os.utime(file, (mtime, mtime))
    assert validators_of(file.stat(), 9.5).modified == told


def test_a_time_beyond_the_calendar_is_not_told() -> None:
    status: Any = SimpleNamespace(st_ino=1, st_size=2, st_mtime_ns=10**12 * 10**9)
    assert validators_of(status, 10**13).headers == {"etag": f'"1-2-{10**21:x}"'}


# Preconditions


@pytest.mark.parametrize("verb", ["get", "head", "put", "delete"])
@pytest.mark.parametrize("tags", [TAG, "*", f'"x", {TAG}', f'W/"a,b",{TAG} ,'])
def test_a_strong_match_is_wanted_and_there(verb: str, tags: str) -> None:
    assert failed(verb, if_match=tags) is None
    assert failed(verb, None, if_match=tags) == 412


@pytest.mark.parametrize("tags", ['"x"', f"W/{TAG}", "", "1-2-3", f"{TAG} x", f"*, {TAG}"])
def test_a_strong_match_is_wanted_and_is_not_there(tags: str) -> None:
    assert failed("put", if_match=tags) == 412


@pytest.mark.parametrize(("verb", "status"), [("get", 304), ("head", 304), ("put", 412), ("delete", 412)])
@pytest.mark.parametrize("tags", [TAG, f"W/{TAG}", "*", f'"x" , {TAG}'])
def test_a_weak_match_is_unwanted_and_there(verb: str, status: int, tags: str) -> None:
    assert failed(verb, if_none_match=tags) == status
    assert failed(verb, None, if_none_match=tags) is None


@pytest.mark.parametrize("verb", ["get", "put"])
def test_a_weak_match_is_unwanted_and_is_not_there(verb: str) -> None:
    assert failed(verb, if_none_match='"x", "1-2-4"') is None


def test_a_date_decides_where_no_tag_does() -> None:
    assert [failed(if_modified_since=date) for date in (BEFORE, AT, AFTER, "soon")] == [None, 304, 304, None]
    assert [failed(if_unmodified_since=date) for date in (BEFORE, AT, AFTER, "soon")] == [412, None, None, None]
    assert failed("put", if_modified_since=AT) is None
    assert failed("put", if_unmodified_since=BEFORE) == 412


def test_a_date_decides_nothing_where_there_is_nothing_to_compare_it_with() -> None:
    for current in (None, Validators(TAG, None)):
        assert failed(current=current, if_modified_since=AT) is None
        assert failed(current=current, if_unmodified_since=BEFORE) is None


def test_tags_take_precedence_over_dates_and_what_is_wanted_over_what_is_unwanted() -> None:
    assert failed(if_match=TAG, if_unmodified_since=BEFORE) is None
    assert failed(if_none_match='"x"', if_modified_since=AFTER) is None
    assert failed(if_match='"x"', if_none_match=TAG) == 412
    assert failed(if_match=TAG, if_none_match=TAG) == 304
    assert failed(if_unmodified_since=AT, if_modified_since=AT) == 304


@given(
    st.sampled_from(["get", "head", "put", "delete", "patch"]),
    st.dictionaries(
        st.sampled_from(["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"]),
        st.text() | st.sampled_from([TAG, f"W/{TAG}", "*", BEFORE, AT, AFTER]),
    ),
    st.sampled_from([CURRENT, Validators(TAG, None), None]),
)
def test_whatever_the_headers_say_it_goes_on_or_ends_as_it_may(
    verb: str, headers: dict[str, str], current: Validators | None
) -> None:
    status = failed_precondition(verb, headers, current)
    assert status in (None, 304, 412)
    assert status != 304 or (verb in ("get", "head") and current is not None)


# Ranges


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=0-999", range(1000)),
        ("bytes=500-", range(500, 1000)),
        ("bytes=999-5000", range(999, 1000)),
        ("bytes=-1", range(999, 1000)),
        ("bytes=-5000", range(1000)),
        ("Bytes = 1-2 , ,", range(1, 3)),
        ("bytes=0-0, 2000-3000", range(1)),
        (f"bytes=1-{10**99 - 1}", range(1, 1000)),
    ],
)
def test_one_range_is_given(text: str, bytes_: range) -> None:
    assert chosen(text) == bytes_


@pytest.mark.parametrize("text", ["bytes=1000-", "bytes=1000-1000", "bytes=-0", "bytes=2000-3000,-0"])
def test_a_range_without_any_byte_of_the_file_is_empty(text: str) -> None:
    assert chosen(text) == range(0)
    assert chosen("bytes=0-", length=0) == range(0)


@pytest.mark.parametrize(
    "text",
    ["", "bytes", "bytes=", "bytes=,", "lines=0-1", "bytes=-", "bytes=2-1", "bytes=1-2-3", "bytes=0-0,2-1", "bytes=a-b",
     "bytes=+1-2", "bytes=1 -2", "bytes=0-1,4-5", "bytes=0-1\0", "bytes=\N{SUPERSCRIPT TWO}-3", f"bytes=1-{10**100}"],
)  # fmt: skip
def test_what_is_no_range_or_more_than_one_is_answered_whole(text: str) -> None:
    assert chosen(text) is None


@pytest.mark.parametrize("condition", [TAG, AT, "Sunday, 06-Nov-94 08:49:37 GMT"])
def test_a_range_of_what_has_not_changed_is_given(condition: str) -> None:
    assert chosen("bytes=1-2", if_range=condition) == range(1, 3)


@pytest.mark.parametrize("condition", [f"W/{TAG}", '"x"', BEFORE, AFTER, "", "*", f"{TAG}, {TAG}"])
def test_what_has_changed_is_answered_whole(condition: str) -> None:
    assert chosen("bytes=1-2", if_range=condition) is None


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_what_is_given_is_what_the_slice_of_the_bytes_is(length: int, first: int, last: int) -> None:
    content = range(length)
    assert chosen(f"bytes={first}-", length) == content[first:] or first >= length
    assert chosen(f"bytes=-{last}", length) == (content[-last:] if last else range(0))
    if first <= last:
        given_ = chosen(f"bytes={first}-{last}", length)
        assert given_ is not None
        assert list(given_) == list(content[first : last + 1])


@given(
    st.text() | st.from_regex(r"bytes=[0-9, -]{0,20}", fullmatch=True),
    st.text() | st.sampled_from([TAG, AT]),
    st.integers(0, 50),
)
def test_whatever_the_range_says_what_is_given_lies_within_the_file(text: str, condition: str, length: int) -> None:
    given_ = chosen(text, length, if_range=condition)
    assert given_ is None or (given_.step == 1 and 0 <= given_.start <= given_.stop <= length)
