"""What the benchmarks found: samples, the figures that follow from them, and the verdicts. Kept as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from machine import Machine
from pydantic import BaseModel, ConfigDict

RESULTS = Path(__file__).with_name("results.json")

# By subject and metric, one value for each round.
Samples = dict[str, dict[str, list[float]]]
Verdict = Literal["met", "missed", "not measured", ""]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Value):
    """A number that is claimed.

    Attributes:
        text: what it is, in a few words; the workload's title stands before it.
        subject: whose.
        metric: which of its metrics.
        to: the subject to whose same metric it is a ratio, round by round; none for the value itself.
        unit: of a value that is no ratio.
        at_least: the target, if any.
        at_most: the target, if any.
    """

    text: str
    subject: str
    metric: str
    to: str | None = None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None


class Finding(_Value):
    """A figure as it was measured: the median of its rounds, the lowest and the highest."""

    figure: Figure
    verdict: Verdict
    median: float | None = None
    low: float | None = None
    high: float | None = None


class Bars(_Value):
    """A plot of a metric: a bar for each subject, as a ratio to one of them."""

    kind: Literal["bars"] = "bars"
    metric: str
    to: str


class Curve(_Value):
    """A plot of a metric over subjects that are numbers.

    Attributes:
        subjects: what the numbers are.
    """

    kind: Literal["curve"] = "curve"
    metric: str
    subjects: str


Plot = Bars | Curve


class Outcome(_Value):
    """All that is known of one workload after it ran."""

    name: str
    title: str
    date: str
    machine: Machine
    rounds: int
    samples: Samples
    skipped: dict[str, str]
    findings: list[Finding]
    plots: list[Plot]


class Results(BaseModel):
    """The latest outcome of every workload."""

    outcomes: list[Outcome] = []

    def put(self, outcome: Outcome, order: Sequence[str]) -> None:
        """Take an outcome in, in place of the former one of that workload; keep those whose names are in `order`."""
        kept = {each.name: each for each in [*self.outcomes, outcome]}
        self.outcomes = [kept[name] for name in order if name in kept]


def load(path: Path = RESULTS) -> Results:
    """Return what is stored, or nothing."""
    return Results.model_validate_json(path.read_text()) if path.exists() else Results()


def save(results: Results, path: Path = RESULTS) -> None:
    path.write_text(results.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def find(figure: Figure, samples: Mapping[str, Mapping[str, Sequence[float]]]) -> Finding:
    """Return a figure as the samples have it.

    The median of the rounds counts, and with a ratio, the median of each round's: its measurements are neighbours in
    time, so that what disturbs the one disturbs the other.
    """
    values = samples.get(figure.subject, {}).get(figure.metric, ())
    if figure.to is not None:
        values = ratios(values, samples.get(figure.to, {}).get(figure.metric, ()))
    if not values:
        return Finding(figure=figure, verdict="not measured")
    median = statistics.median(values)
    return Finding(figure=figure, verdict=_verdict(figure, median), median=median, low=min(values), high=max(values))


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratio of each round that has both."""
    return [value / other for value, other in zip(values, others, strict=False)]


def short(value: float | None) -> str:
    """Write a value with the digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(figure: Figure, value: float) -> Verdict:
    if figure.at_least is None and figure.at_most is None:
        return ""
    enough = figure.at_least is None or value >= figure.at_least
    return "met" if enough and (figure.at_most is None or value <= figure.at_most) else "missed"
