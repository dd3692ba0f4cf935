"""What a terminal shows of a status fits it, tells what matters most first, and obeys nothing of what peers say."""

from typing import Any

import pytest
from rich.console import Console

from restpipe.cli.status_view import StatusView, size, span, sparkline

NOW = 1_800_000_000.0
DAY = 86400


def peer(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": name, "address": "192.0.2.1", "software": "restpipe/1.0.0", "since": NOW - 90, "available": True,
        "round_trip_s": 0.0123, "in_flight": 3, "queued": 0, "rate": 12.5, "opened": 1234, "opened_failed": 5,
        "served": 7, "served_failed": 0, "received": 5_000_000, "sent": 300, "expires": NOW + 5 * DAY,
    } | changed  # fmt: skip


def event(**changed: Any) -> dict[str, Any]:
    return {
        "sequence": 1, "ended": NOW, "side": "opened", "verb": "get", "noun": "value", "peer": "alpha",
        "request_id": "abc-1", "outcome": "failed", "seconds": 0.5, "fault": "LookupError",
    } | changed  # fmt: skip


def document(peers: list[dict[str, Any]], events: list[dict[str, Any]], **node: Any) -> dict[str, Any]:
    names = ("opened", "opened_failed", "served", "served_failed", "received", "sent")
    return {
        "node": {
            "role": "server", "name": "server", "version": "1.0.0", "started": NOW - 3 * DAY, "ready": True,
            "fault": "", "last_failure": "",
        } | node,
        "now": NOW,
        "totals": dict.fromkeys(names, 10),
        "samples": {name: [1, 2, 3] for name in names},
        "certificates": {"node": NOW + 400 * DAY, "ca": NOW - 1},
        "peers": {"connected": len(peers), "in_flight": 0, "queued": 0, "first_expires": NOW + DAY,
                  "matching": len(peers) + 7, "offset": 0, "list": peers},
        "events": events,
    }  # fmt: skip


def shown(told: dict[str, Any], width: int = 200, **options: Any) -> list[str]:
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(StatusView(told, width=width, **options))
    return capture.get().splitlines()


FULL = document([peer("alpha"), peer("a-client-with-a-name-that-is-long", rate=0.25)], [event(noun="n" * 120)])


@pytest.mark.parametrize("width", [20, 32, 40, 60, 80, 100, 120, 160, 200])
def test_no_line_is_wider_than_the_screen_and_no_table_is_broken(width: int) -> None:
    lines = [line.rstrip() for line in shown(FULL, width)]
    assert max(map(len, lines)) <= width
    heading = next(i for i, line in enumerate(lines) if line.startswith("name"))
    assert lines[heading + 1].startswith("alpha")
    assert lines[heading + 2].startswith("a-cl")
    assert lines[heading + 3].startswith("and 7 more")


def test_what_matters_most_is_shown_at_any_width() -> None:
    narrow = "\n".join(shown(FULL, 40))
    assert "req/s" in narrow
    assert "failed" in narrow
    assert "certificate " not in narrow
    wide = "\n".join(shown(FULL))
    for word in ("192.0.2.1", "12 ms", "0.2", "1,234", "4.8 MiB", "in 5 d", "restpipe/1.0.0", "LookupError", "abc-1"):
        assert word in wide
    assert "CA expired" in wide
    assert "own in 400 d" in wide


@pytest.mark.parametrize("height", [8, 12, 24])
def test_no_more_lines_than_the_screen_has(height: int) -> None:
    told = document([peer(f"p{i}") for i in range(50)], [event() for _ in range(50)])
    for width in (40, 80, 120):
        lines = shown(told, width, height=height, note="a note", alert="an alert")
        assert len(lines) <= max(height, 18)
        assert lines[0] == "an alert"
    assert len(shown(told, 120, height=24)) <= 24


def test_nothing_that_a_peer_says_reaches_the_terminal_as_a_command() -> None:
    evil = "\x1b]0;owned\x07\x9b2J\r[bold red]x[/]\u202e"
    told = document([peer(evil, software=evil)], [event(noun=evil, fault=evil, request_id=evil)], last_failure=evil)
    told["node"]["ready"] = False
    text = "\n".join(shown(told, 400))
    assert not any(sign in text for sign in "\x1b\x07\x9b\r\u202e")
    assert text.count("[bold red]x[/]") >= 4


def test_a_node_that_is_not_ready_says_why() -> None:
    told = document([], [], ready=False, fault="this node is not connected", last_failure="nothing listens there")
    text = "\n".join(shown(told))
    assert "not ready" in text
    assert "this node is not connected: nothing listens there" in text
    assert "nothing is connected" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00004, "40 µs"), (0.0012, "1.2 ms"), (0.25, "250 ms"), (1, "1 s"), (90, "2 min"), (7200, "2 h"),
     (3 * DAY, "3 d"), (-1, "0 µs")],
)  # fmt: skip
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_size_is_told_in_the_unit_that_suits_it() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 * 1024**4)] == ["0 B", "1,023 B", "1.5 KiB", "5 TiB"]


def test_a_curve_is_as_wide_as_there_is_room_for_and_as_high_as_its_highest() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([0, 0], 10) == "▁▁"
    assert sparkline([0, 7, 14], 10) == "▁▅█"
    assert sparkline([*range(50)], 10)[-1] == "█"
    assert len(sparkline([1] * 300, 40)) == 40
