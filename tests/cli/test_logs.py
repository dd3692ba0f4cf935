"""The log tells of which request it speaks, and nothing of what the request carries."""

import json
import logging
from typing import Any

import pytest

from restpipe.cli.logs import JsonFormatter, TextFormatter


def record(message: str, *arguments: object, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("restpipe.test")
    return logger.makeRecord(logger.name, logging.WARNING, "file.py", 1, message, arguments, None, extra=extra)


def test_json_is_one_object_a_line_with_who_what_and_which() -> None:
    told = {"peer": "alpha", "event": "get time", "request_id": "ab12-7", "traceparent": "00-1-2-01"}
    line = JsonFormatter().format(record("%s\nfailed", "it", **told))
    assert "\n" not in line
    document = json.loads(line)
    assert document.pop("time").endswith("+00:00")
    assert document == {"level": "warning", "logger": "restpipe.test", "message": "it\nfailed", **told}


def test_json_has_the_traceback() -> None:
    failed = record("failed")
    try:
        raise RuntimeError("why")
    except RuntimeError as error:
        failed.exc_info = type(error), error, error.__traceback__
    assert json.loads(JsonFormatter().format(failed))["exception"].endswith("RuntimeError: why")


def test_what_a_record_carries_beyond_that_is_not_shown() -> None:
    secret = record("taken", body="the secret", authorization="the secret", request_id="ab12-7")
    for formatter in (JsonFormatter(), TextFormatter()):
        line = formatter.format(secret)
        assert "the secret" not in line
        assert "ab12-7" in line


def test_a_line_of_text_ends_with_its_request() -> None:
    line = TextFormatter().format(record("failed", peer="alpha", request_id="ab12-7", traceparent=""))
    assert line.endswith("WARNING failed [peer alpha, request_id ab12-7]")
    assert TextFormatter().format(record("stopped")).endswith("WARNING stopped")


def test_no_name_brings_control_characters_into_the_log() -> None:
    for formatter in (JsonFormatter(), TextFormatter()):
        line = formatter.format(record("failed", event="get \x1b[2Jtime\r\nfaked"))
        assert not any(character in line for character in "\x1b\r\n")


@pytest.mark.parametrize("character", ["\x1b[2J", "\n", "\r", "\b", "\x7f", "\x9b", "\u2028"])
def test_what_others_said_stays_on_its_line_and_off_the_terminal(character: str) -> None:
    line = TextFormatter().format(record("the peer said %s", f"bye{character}faked"))
    assert character not in line
    assert ascii(character)[1:-1] in line
    line = JsonFormatter().format(record("the peer said %s", f"bye{character}faked"))
    assert character not in line
    assert json.loads(line)["message"] == f"the peer said bye{character}faked"


def test_no_line_of_a_traceback_passes_for_one_of_the_log() -> None:
    failed = record("failed")
    try:
        raise RuntimeError("why\n2026-01-01 00:00:00,000 INFO    faked \x1b[2J")
    except RuntimeError as error:
        failed.exc_info = type(error), error, error.__traceback__
    first, *others = TextFormatter().format(failed).split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("  ") for line in others)
    assert others[-1].endswith("faked \\x1b[2J")


def test_text_of_any_language_is_shown_as_it_is() -> None:
    assert TextFormatter().format(record("größer 東京")).endswith("größer 東京")
