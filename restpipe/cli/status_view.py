"""What `/status` tells, laid out for a terminal of any width."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from restpipe.identity.wording import printable

_BLOCKS = "▁▂▃▄▅▆▇█"
# Seconds of the last of which the rates are the mean.
_RECENT = 5
DAY = 86400
_SOON = 14 * DAY
_MARGIN = 2
# Empty lines, headings of tables, and the one that tells of further peers.
_BETWEEN = 5

Cell = tuple[str, str]
Column = tuple[str, Callable[[dict[str, Any], float], Cell], bool]


class StatusView:
    """A status, as rich shows it.

    Args:
        document: what `/status` told.
        width: characters for which columns are chosen.
        height: lines that there are for it all; None for as many as it takes.
        note: said beside the node's name.
        alert: a line to put first, "" for none.
    """

    def __init__(
        self, document: dict[str, Any], *, width: int, height: int | None = None, note: str = "", alert: str = ""
    ) -> None:
        self._document = document
        self._width = width
        self._height = height
        self._note = note
        self._alert = alert

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        """Yield line after line."""
        head = [Text(printable(self._alert), "bold red")] if self._alert else []
        head += self._head()
        yield from head
        peers, events = self._document["peers"], self._document["events"]
        found, now = peers["list"], self._document["now"]
        if self._height is not None:
            rows = max(2, self._height - len(head) - _BETWEEN)
            events = events[: rows // 3]
            found = found[: rows - len(events)]
        yield Text()
        if found:
            yield _table(PEERS, found, now, self._width)
            if len(found) < peers["matching"]:
                yield Text(f"and {peers['matching'] - len(found):,} more", "dim")
        else:
            yield Text("nothing is connected, or nothing matches", "dim")
        if events:
            yield Text()
            yield _table(EVENTS, events, now, self._width)

    def _head(self) -> Iterator[Text]:
        """Yield what is to be told of the node itself."""
        told = self._document
        node, peers, totals, samples = told["node"], told["peers"], told["totals"], told["samples"]
        rates = {name: _mean(samples[name][-_RECENT:]) for name in samples}
        state = ("ready", "bold green") if node["ready"] else ("not ready", "bold red")
        title = f"{node['role']} node {printable(node['name'])}", "bold"
        yield from self._lines(
            [
                title,
                state,
                _plain("up", span(told["now"] - node["started"])),
                _plain("restpipe", node["version"]),
                (self._note, "dim"),
            ]
        )
        if not node["ready"]:
            why = ": ".join(filter(None, (node["fault"], node["last_failure"])))
            yield Text(printable(why), "red")
        requests = [one + other for one, other in zip(samples["opened"], samples["served"], strict=True)]
        failures = rates["opened_failed"] + rates["served_failed"]
        yield from self._lines(
            [
                _plain(f"{peers['connected']:,}", "connected"),
                _plain(f"{peers['in_flight']:,}", "in flight"),
                _plain(f"{peers['queued']:,}", "queued"),
                _plain(figure(rates["opened"] + rates["served"]), "requests/s"),
                (f"{figure(failures)} failed/s", "red" if failures else ""),
                _plain("in", f"{size(rates['received'])}/s"),
                _plain("out", f"{size(rates['sent'])}/s"),
                _plain(f"{totals['opened'] + totals['served']:,}", "requests"),
            ]
        )
        ends = {"own": told["certificates"]["node"], "CA": told["certificates"]["ca"], "peers'": peers["first_expires"]}
        words = [(whose, *_expiry(end, told["now"])) for whose, end in ends.items() if end is not None]
        yield from self._lines(
            [("certificates end", "dim"), *((f"{whose} {text}", style) for whose, text, style in words)]
        )
        if any(requests):
            curve = sparkline(requests, min(60, max(10, self._width - 40)))
            yield Text.assemble("requests/s ", (curve, "cyan"), f" of at most {max(requests):,}")

    def _lines(self, items: list[Cell]) -> Iterator[Text]:
        """Break lines between items alone."""
        line = Text()
        for text, style in items:
            if not text:
                continue
            if line and line.cell_len + _MARGIN + Text(text).cell_len > self._width:
                yield line
                line = Text()
            line.append(" " * _MARGIN if line else "").append(text, style)
        yield line


def sparkline(values: list[int], width: int) -> str:
    """Draw the last values, at most five for each character, as bars of an eighth to a whole line."""
    each = max(1, min(5, len(values) // width))
    values = values[-width * each :]
    bars = [max(values[i : i + each]) for i in range(0, len(values), each)]
    most = max(bars, default=0) or 1
    return "".join(_BLOCKS[round(bar / most * (len(_BLOCKS) - 1))] for bar in bars)


def span(seconds: float) -> str:
    """Return a duration in one or two units."""
    if seconds < 0.001:
        return f"{max(0.0, seconds) * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.{0 if seconds >= 0.0095 else 1}f} ms"
    for unit, length, most in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 2 * DAY)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds // DAY:.0f} d"


def size(count: float) -> str:
    """Return a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{figure(count)} {unit}"
        count /= 1024
    return f"{figure(count)} TiB"


def figure(value: float) -> str:
    """Return a number, with a digit behind the point where it is small."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _plain(*words: str) -> Cell:
    return " ".join(words), ""


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def _expiry(end: float | None, now: float) -> Cell:
    if end is None:
        return "", ""
    left = end - now
    return ("expired", "bold red") if left <= 0 else (f"in {span(left)}", "yellow" if left < _SOON else "")


def _failed(count: int) -> Cell:
    return f"{count:,}", "red" if count else "dim"


# Heading, cell, and whether it is a figure; the most wanted first, the others where there is room.
_PEERS: tuple[Column, ...] = (
    ("name", lambda p, _: (p["name"], "bold" if p["available"] else "dim"), False),
    ("req/s", lambda p, _: (figure(p["rate"]), ""), True),
    ("round trip", lambda p, _: ("" if p["round_trip_s"] is None else span(p["round_trip_s"]), ""), True),
    ("failed", lambda p, _: _failed(p["opened_failed"] + p["served_failed"]), True),
    ("in flight", lambda p, _: (f"{p['in_flight']:,}", ""), True),
    ("address", lambda p, _: (p["address"], ""), False),
    ("since", lambda p, now: (span(now - p["since"]), ""), True),
    ("opened", lambda p, _: (f"{p['opened']:,}", ""), True),
    ("served", lambda p, _: (f"{p['served']:,}", ""), True),
    ("in", lambda p, _: (size(p["received"]), ""), True),
    ("out", lambda p, _: (size(p["sent"]), ""), True),
    ("certificate", lambda p, now: _expiry(p["expires"], now), True),
    ("software", lambda p, _: (p["software"], ""), False),
)
PEERS = (_PEERS, ("name", "address", "software", "since", "round trip", "req/s", "in flight", "opened",
         "served", "failed", "in", "out", "certificate"))  # fmt: skip
_EVENTS: tuple[Column, ...] = (
    ("event", lambda e, _: (f"{e['verb'].upper()} {e['noun']}".strip() or "(never sent)", ""), False),
    ("outcome", lambda e, _: (e["outcome"], "green" if e["outcome"] == "done" else "red"), False),
    ("took", lambda e, _: (span(e["seconds"]), ""), True),
    ("peer", lambda e, _: (e["peer"], ""), False),
    ("time", lambda e, _: (datetime.fromtimestamp(e["ended"]).astimezone().strftime("%H:%M:%S"), ""), False),
    ("side", lambda e, _: (e["side"], ""), False),
    ("fault", lambda e, _: (e["fault"], ""), False),
    ("request", lambda e, _: (e["request_id"], "dim"), False),
)
EVENTS = (_EVENTS, ("time", "event", "side", "peer", "outcome", "took", "fault", "request"))


def _table(
    columns: tuple[tuple[Column, ...], tuple[str, ...]], items: list[dict[str, Any]], now: float, width: int
) -> Table:
    """Lay out as many columns as the width has room for, the first at any width."""
    wanted, order = columns
    chosen: dict[str, tuple[bool, list[Text]]] = {}
    left = first = width
    for heading, show, is_figure in wanted:
        cells = [Text(printable(text), style) for text, style in (show(item, now) for item in items)]
        needed = max(len(heading), *(cell.cell_len for cell in cells)) + _MARGIN
        if not chosen:
            needed = first = min(needed, width * 5 // 9)
        if not any(cells) or (chosen and needed - _MARGIN > left):
            continue
        chosen[heading] = is_figure, cells
        left -= needed
    table = Table(box=None, pad_edge=False, padding=(0, _MARGIN, 0, 0), header_style="dim")
    shown = [heading for heading in order if heading in chosen]
    for heading in shown:
        is_figure, _ = chosen[heading]
        table.add_column(
            heading, justify="right" if is_figure else "left", no_wrap=True, overflow="ellipsis",
            max_width=first - _MARGIN if heading == wanted[0][0] else None,
        )  # fmt: skip
    for row in zip(*(chosen[heading][1] for heading in shown), strict=True):
        table.add_row(*row)
    return table
