"""The harness itself: its statistics, and that what the README shows is what was measured."""

import re
from pathlib import Path
from xml.etree import ElementTree

import plots
import pytest
from machine import this_machine
from report import README, chapter, with_current_chapter
from results import Bars, Curve, Figure, Outcome, Results, find, load, save
from rich.progress import Progress
from workload import Run, Workload

SAMPLES = {
    "ours": {"MB/s": [30.0, 10.0, 20.0, 90.0, 40.0]},
    "theirs": {"MB/s": [10.0, 10.0, 10.0, 10.0, 100.0]},
}


def a_run(tmp_path: Path, rounds: int) -> Run:
    return Run(rounds=rounds, seconds=1, quick=False, scratch=tmp_path, progress=Progress(disable=True))


def an_outcome(name: str, **samples: list[float]) -> Outcome:
    return Outcome(
        name=name,
        title=f"the {name}",
        date="2026-01-01",
        machine=this_machine(),
        rounds=5,
        samples={subject: {"MB/s": values} for subject, values in samples.items()},
        skipped={},
        findings=[],
        plots=[Bars(metric="MB/s", to="theirs")],
    )


def test_a_figure_is_the_median_of_its_rounds_with_the_lowest_and_the_highest() -> None:
    finding = find(Figure(text="", subject="ours", metric="MB/s"), SAMPLES)
    assert (finding.median, finding.low, finding.high) == (30.0, 10.0, 90.0)


def test_a_ratio_is_the_median_of_the_ratios_of_each_round_and_not_the_ratio_of_medians() -> None:
    finding = find(Figure(text="", subject="ours", metric="MB/s", to="theirs"), SAMPLES)
    assert (finding.median, finding.low, finding.high) == (2.0, 0.4, 9.0)


@pytest.mark.parametrize(
    ("at_least", "at_most", "verdict"),
    [
        (None, None, ""),
        (30.0, None, "met"),
        (30.1, None, "missed"),
        (None, 30.0, "met"),
        (None, 29.9, "missed"),
        (29.0, 31.0, "met"),
        (31.0, 32.0, "missed"),
        (28.0, 29.0, "missed"),
    ],
)
def test_a_target_is_met_by_the_median_at_its_bound_and_within(
    at_least: float | None, at_most: float | None, verdict: str
) -> None:
    figure = Figure(text="", subject="ours", metric="MB/s", at_least=at_least, at_most=at_most)
    assert find(figure, SAMPLES).verdict == verdict


@pytest.mark.parametrize("figure", [("nobody", "theirs"), ("ours", "nobody")])
def test_a_figure_that_lacks_a_side_is_not_measured_rather_than_met(figure: tuple[str, str]) -> None:
    subject, to = figure
    finding = find(Figure(text="", subject=subject, metric="MB/s", to=to, at_most=1), SAMPLES)
    assert (finding.verdict, finding.median) == ("not measured", None)


def test_every_subject_is_measured_once_a_round_in_an_order_that_rotates_and_the_warm_up_does_not_count(
    tmp_path: Path,
) -> None:
    run, calls = a_run(tmp_path, rounds=3), list[str]()

    def measured(name: str) -> dict[str, float]:
        calls.append(name)
        return {"calls": len(calls)}

    run.interleave({"a": lambda: measured("a"), "b": lambda: measured("b"), "c": lambda: measured("c")})
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert run.samples == {"a": {"calls": [6, 8, 10]}, "b": {"calls": [4, 9, 11]}, "c": {"calls": [5, 7, 12]}}
    assert list(run.samples) == ["a", "b", "c"]


def test_an_outcome_has_a_finding_for_each_figure_and_the_reasons_for_what_was_skipped(tmp_path: Path) -> None:
    run = a_run(tmp_path, rounds=5)
    run.record("ours", {"MB/s": 3.0})
    run.skip("theirs", "it is not installed")
    figures = (
        Figure(text="alone", subject="ours", metric="MB/s", at_least=3),
        Figure(text="beside", subject="ours", metric="MB/s", to="theirs", at_least=3),
    )
    outcome = Workload("bulk", "bulk", lambda _run: None, figures).outcome(run, this_machine())
    assert [finding.verdict for finding in outcome.findings] == ["met", "not measured"]
    assert outcome.skipped == {"theirs": "it is not installed"}


def test_a_later_outcome_takes_the_place_of_the_former_and_leaves_the_others(tmp_path: Path) -> None:
    results = Results(outcomes=[an_outcome("b", theirs=[1]), an_outcome("gone", theirs=[1])])
    results.put(an_outcome("a", theirs=[1]), order=["a", "b"])
    results.put(an_outcome("b", theirs=[2]), order=["a", "b"])
    assert [outcome.name for outcome in results.outcomes] == ["a", "b"]
    assert results.outcomes[1].samples == {"theirs": {"MB/s": [2]}}
    save(results, tmp_path / "results.json")
    assert load(tmp_path / "results.json") == results


def test_a_bar_is_as_long_as_its_ratio_and_tells_the_ratio_and_the_value() -> None:
    drawn = plots.svg(an_outcome("bulk", ours=[30, 30], theirs=[10, 10]), Bars(metric="MB/s", to="theirs"))
    widths = [float(width) for width in re.findall(r'<rect class="other".*width="([\d.]+)"', drawn)]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)
    assert re.search(r">3\.00</text>\n<text[^>]*>30</text>", drawn)


def test_a_curve_has_a_point_for_each_number() -> None:
    samples: dict[str, list[float]] = {"1": [5, 7, 6], "1,024": [2, 1, 3]}
    drawn = plots.svg(an_outcome("flight", **samples), Curve(metric="MB/s", subjects="exchanges in flight"))
    assert drawn.count("<circle") == 2


def test_what_the_readme_says_of_speed_is_what_was_measured() -> None:
    text = README.read_text()
    assert with_current_chapter(text, load()) == text, "run `python tests/bench/report.py`"
    for finding in (finding for outcome in load().outcomes for finding in outcome.findings):
        assert finding == find(finding.figure, _samples_of(finding.figure)), "a finding is not that of its samples"


def _samples_of(figure: Figure) -> dict[str, dict[str, list[float]]]:
    return next(
        outcome.samples
        for outcome in load().outcomes
        if any(finding.figure == figure for finding in outcome.findings)
    )  # fmt: skip


def test_the_plots_are_those_of_what_was_measured_small_and_with_their_text_as_text(tmp_path: Path) -> None:
    plots.draw(load(), tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in plots.PLOTS.iterdir()}, (
        "run `python tests/bench/report.py`"
    )
    for name, text in drawn.items():
        assert f"](tests/bench/plots/{name})" in chapter(load())
        assert len(text) < 60_000
        assert next(ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")).text
