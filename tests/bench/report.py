"""What is told of the results: a table for the terminal, and the README's chapter, which is derived from the JSON.

Run as a program, it draws the plots and writes the chapter into the README.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import plots
from results import Figure, Finding, Outcome, Results, load, ratios, short
from rich.table import Table

README = Path(__file__).parents[2] / "README.md"
_PLACE = re.compile(r"(<!-- benchmarks: begin -->\n).*(<!-- benchmarks: end -->)", re.DOTALL)
_COMPARISON = re.compile(r"(<!-- comparison: begin -->\n).*(<!-- comparison: end -->)", re.DOTALL)
# Workload, metric, and what is said of it where RestPipe is compared with other tools.
_COMPARED = (
    ("small", "requests/s", "requests a second, 64 connections"),
    ("small", "CPU µs a request", "processor time for each"),
    ("single", "p50 ms", "usual time of one that is alone"),
    ("single", "p99 ms", "and its p99"),
)
_YARDSTICKS = frozenset(("RestPipe", "plain FastAPI", "bare ASGI"))
_COLOURS = {"met": "green", "missed": "red", "not measured": "yellow", "": ""}


def target(figure: Figure) -> str:
    """Write what a figure should be."""
    bounds = [("at least", figure.at_least), ("at most", figure.at_most)]
    return " and ".join(f"{words} {short(bound)}" for words, bound in bounds if bound is not None)


def measured(finding: Finding) -> str:
    """Write what a figure is: the median, and the range of the rounds."""
    if finding.median is None:
        return "not measured"
    unit = f" {finding.figure.unit}" if finding.figure.unit else ""
    return f"{short(finding.median)}{unit} ({short(finding.low)} to {short(finding.high)})"


def figures_table(outcomes: list[Outcome]) -> Table:
    """Return the figures, their targets and the verdicts."""
    table = Table(title="figures: median of the rounds (lowest to highest)")
    for column in ("workload", "figure", "measured", "target", "verdict"):
        table.add_column(column)
    for outcome in outcomes:
        for number, finding in enumerate(outcome.findings):
            colour = _COLOURS[finding.verdict]
            verdict = f"[{colour}]{finding.verdict}[/]" if colour else ""
            title = outcome.title if number == 0 else ""
            table.add_row(title, finding.figure.text, measured(finding), target(finding.figure), verdict)
        table.add_section()
    return table


def samples_table(outcome: Outcome) -> Table:
    """Return the medians of all that was measured in one workload."""
    metrics = list(dict.fromkeys(metric for subject in outcome.samples.values() for metric in subject))
    table = Table(title=f"{outcome.title}, medians of {outcome.rounds} rounds")
    table.add_column("")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for subject, values in outcome.samples.items():
        medians = [median(values[metric]) if metric in values else None for metric in metrics]
        table.add_row(subject, *map(short, medians))
    if outcome.skipped:
        table.caption = "skipped: " + "; ".join(f"{subject}, {why}" for subject, why in outcome.skipped.items())
    return table


def chapter(results: Results) -> str:
    """Return the part of the README that tells the results."""
    lines = ["| workload | figure | median (lowest to highest) | target | |", "|---|---|---|---|---|"]
    for outcome in results.outcomes:
        for number, finding in enumerate(outcome.findings):
            title = outcome.title if number == 0 else ""
            cells = (title, finding.figure.text, measured(finding), target(finding.figure), finding.verdict)
            lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for outcome in results.outcomes:
        for file, plot in plots.files(outcome):
            lines += [f"![{plots.title(outcome, plot)}](tests/bench/plots/{file})", ""]
    return "\n".join([*lines, *_circumstances(results)])


def _circumstances(results: Results) -> Iterator[str]:
    """Say where and when each part was measured, and what was not."""
    places: dict[str, list[Outcome]] = {}
    for outcome in results.outcomes:
        places.setdefault(f"on {outcome.date}: {outcome.machine.words}", []).append(outcome)
    for place, outcomes in places.items():
        which = "Measured" if len(places) == 1 else f"Measured ({', '.join(each.name for each in outcomes)})"
        yield f"{which} {place}."
    skipped = {subject: why for outcome in results.outcomes for subject, why in outcome.skipped.items()}
    if skipped:
        yield f"Skipped: {'; '.join(f'{subject}, {why}' for subject, why in skipped.items())}."


def comparison(results: Results) -> str:
    """Return a table of what RestPipe does, as a ratio to what each of the other tools does."""
    samples = {outcome.name: outcome.samples for outcome in results.outcomes}
    lines = [f"| RestPipe, of | {' | '.join(words for _, _, words in _COMPARED)} |", f"|---{'|---' * len(_COMPARED)}|"]
    for subject in samples["small"]:
        if subject in _YARDSTICKS:
            continue
        cells = [
            short(median(ratios(samples[workload]["RestPipe"][metric], samples[workload][subject][metric])))
            if subject in samples[workload]
            else ""
            for workload, metric, _ in _COMPARED
        ]
        lines.append(f"| {subject} | {' | '.join(cells)} |")
    return "\n".join(lines)


def with_current_chapter(text: str, results: Results) -> str:
    """Return the README as it should be."""
    text = _COMPARISON.sub(lambda place: f"{place[1]}\n{comparison(results)}\n\n{place[2]}", text)
    return _PLACE.sub(lambda place: f"{place[1]}\n{chapter(results).strip()}\n\n{place[2]}", text)


def publish(results: Results) -> None:
    """Draw the plots, and write the chapter into the README."""
    plots.draw(results)
    README.write_text(with_current_chapter(README.read_text(), results))


if __name__ == "__main__":
    publish(load())
