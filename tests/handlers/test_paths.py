"""From the raw path to noun and arguments: nothing is lost, nothing is guessed, nothing but one error is raised."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from restpipe.exceptions import BadRequestError
from restpipe.handlers.paths import MAX_QUERY_PARAMETERS, decode, parse_event_path, parse_query

# What can be in a URL: no surrogates, and no NUL, which paths refuse.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NOUNS = st.lists(TEXTS.filter(bool), min_size=1, max_size=3)


def quoted(text: str) -> bytes:
    """Quote for a path, slashes too."""
    return quote(text, safe="").encode()


@pytest.mark.parametrize(
    ("raw", "noun", "arguments"),
    [
        (b"time", "time", []),
        (b"time/utc", "time/utc", []),
        (b"time/", "time", []),
        (b"cat//hello%20/world", "cat", ["hello ", "world"]),
        (b"cat//a%2Fb/", "cat", ["a/b", ""]),
        (b"cat//", "cat", [""]),
        (b"cat///", "cat", ["", ""]),
        (b"cat//a//b", "cat", ["a", "", "b"]),
        (b"cat//a+b", "cat", ["a+b"]),
        (b"cat//%2520", "cat", ["%20"]),
        (b"cat//%c3%A9", "cat", ["é"]),
        (b"a%2F%2Fb//c", "a//b", ["c"]),
        (b"../etc//passwd", "../etc", ["passwd"]),
        (b"%2e%2e/x", "../x", []),
        (b"", "", []),
        (b"//x", "", ["x"]),
    ],
)
def test_the_first_double_slash_parts_noun_and_arguments(raw: bytes, noun: str, arguments: list[str]) -> None:
    assert parse_event_path(raw) == (noun, arguments)


@pytest.mark.parametrize(
    "raw", [b"%", b"a%2", b"a%zz", b"a%2G//b", b"cat//%", b"%ff", b"cat//%c3", b"\xff", b"%ed%a0%80"]
)
def test_what_is_not_percent_encoded_utf_8_is_refused_and_shown(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match=r"%|\\xff"):
        parse_event_path(raw)


@pytest.mark.parametrize("raw", [b"a%00", b"cat//b%00c"])
def test_a_nul_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="NUL"):
        parse_event_path(raw)


@given(st.binary())
def test_any_bytes_are_a_path_or_a_bad_request(raw: bytes) -> None:
    try:
        noun, arguments = parse_event_path(raw)
    except BadRequestError:
        return
    assert isinstance(noun, str)
    assert len(arguments) == (0 if b"//" not in raw else raw.partition(b"//")[2].count(b"/") + 1)


@given(NOUNS, st.lists(TEXTS))
@example(["cat"], [""])
@example(["cat"], ["/", "//", "%2F", "+", "?", "#", ";", "..", "\U0001f40d"])
def test_quoted_nouns_and_arguments_come_back_as_they_were(noun: list[str], arguments: list[str]) -> None:
    raw = b"/".join(map(quoted, noun))
    if arguments:
        raw += b"//" + b"/".join(map(quoted, arguments))
    assert parse_event_path(raw) == ("/".join(noun), arguments)


@given(TEXTS)
def test_decoding_undoes_quoting_once(text: str) -> None:
    assert decode(quoted(text)) == text


@given(st.lists(st.tuples(TEXTS.filter(bool), st.text(st.characters(exclude_categories=["Cs"])))))
def test_a_query_comes_back_as_it_was_repeats_and_empty_values_too(query: list[tuple[str, str]]) -> None:
    assert parse_query(urlencode(query).encode()) == query


@given(st.binary())
def test_any_bytes_are_a_query_or_a_bad_request(raw: bytes) -> None:
    try:
        parsed = parse_query(raw)
    except BadRequestError:
        return
    for name, value in parsed:
        (name + value).encode()  # no surrogates: a message could not carry them


def test_a_query_of_too_many_parameters_is_refused_and_the_limit_named() -> None:
    most = b"&".join([b"x=1"] * MAX_QUERY_PARAMETERS)
    assert len(parse_query(most)) == MAX_QUERY_PARAMETERS
    with pytest.raises(BadRequestError, match=str(MAX_QUERY_PARAMETERS)):
        parse_query(most + b"&x=1")


@pytest.mark.parametrize("raw", [b"x=%ff", b"x=\xff", b"%c3=1"])
def test_a_query_that_is_not_utf_8_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError, match="UTF-8"):
        parse_query(raw)
