"""The log of a node that runs as a process: lines to read, or JSON for what collects logs."""

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from restpipe.cli.log_writer import LogWriter
from restpipe.config.values import LogFormat

# What RestPipe adds to its records. Nothing else that a record carries is shown: it may be a body, or a secret.
TOLD = ("event", "peer", "request_id", "traceparent")


# Control characters, and what some readers take for the end of a line: what a peer said of itself may have any of them,
# and would move the cursor, or begin a line that nobody wrote.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class TextFormatter(logging.Formatter):
    """A line for people, which ends with the request that it speaks of; a traceback follows indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of the standard library
        """Return the line, without a traceback."""
        line = _visible(super().formatMessage(record))
        told = [f"{name} {value}" for name, value in _told(record).items()]
        return f"{line} [{', '.join(told)}]" if told else line

    def formatException(self, ei: Any) -> str:  # noqa: N802 - likewise
        """Return the traceback, of which no line can pass for one of the log."""
        return "\n".join(f"  {_visible(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_told(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        line = to_json(document, serialize_unknown=True).decode()
        return _CONTROL.sub(lambda control: f"\\u{ord(control[0]):04x}", line)  # those that JSON lets pass


def configure_logging(*, debug: bool, log_format: LogFormat) -> None:
    """Log to standard error: RestPipe's own, and warnings of others."""
    handler = LogWriter(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("restpipe").setLevel(logging.DEBUG if debug else logging.INFO)


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda control: ascii(control[0])[1:-1], text)


def _told(record: logging.LogRecord) -> dict[str, str]:
    told = {name: getattr(record, name, "") for name in TOLD}
    return {name: ascii(value)[1:-1] if isinstance(value, str) else str(value) for name, value in told.items() if value}
