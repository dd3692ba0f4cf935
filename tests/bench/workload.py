"""The benchmark harness: what a workload is, and how one plugs in.

A workload is a `Workload` in the tuple of `workloads.py`. Its `measure` gets a `Run`, starts what it needs (processes
by `processes.running` and `processes.nodes`, which end with their `with`), and gives each *subject*, something that
does the work in its own way, a function that does one measurement and returns its metrics:

    def measure(run: Run) -> None:
        with nodes(run) as pair, uvicorn("endpoints:files") as (_, port):
            run.interleave({
                "RestPipe": lambda: {"MB/s": download(f"{pair.server.web}/client/client/file")},
                "plain FastAPI": lambda: {"MB/s": download(f"http://127.0.0.1:{port}/file")},
            })

    BULK = Workload(
        name="bulk",
        title="1 GiB to a client, loopback",
        measure=measure,
        figures=(Figure(text="of plain FastAPI", subject="RestPipe", metric="MB/s", to="plain FastAPI", at_least=0.8),),
        plots=(Bars(metric="MB/s", to="plain FastAPI"),),
    )

`interleave` runs all subjects once unmeasured, then every subject once in each round, in an order that rotates, and
keeps one value a round of each metric, whose unit is part of its name. `run.record` keeps further ones; `run.skip` says
why a subject is missing, and raising `UnavailableError` why the whole workload is. `run.quick` asks for a try: less
data. `contenders.standing` runs RestPipe and what it is compared with. Figures, verdicts, JSON, plots and the README's
chapter follow from the samples.

Try one by `make bench ONLY=bulk QUICK=1`, which keeps nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from machine import Machine
from results import Figure, Outcome, Plot, Samples, find
from rich.progress import Progress

# One measurement: values by metric.
Measure = Callable[[], Mapping[str, float]]


class UnavailableError(Exception):
    """A workload cannot be measured here; the text says why and what would help."""


@dataclass
class Run:
    """A workload being measured.

    Attributes:
        rounds: of every interleaving, five or more unless it is a try.
        seconds: that one measurement of a rate should take.
        quick: this is a try, whose figures are not kept.
        scratch: an empty directory, removed afterwards.
    """

    rounds: int
    seconds: float
    quick: bool
    scratch: Path
    progress: Progress
    samples: Samples = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    skipped: dict[str, str] = field(default_factory=dict)

    def interleave(self, subjects: Mapping[str, Measure]) -> None:
        """Measure all subjects side by side."""
        names = list(subjects)
        for name in names:
            self.samples[name].update({})
        bar = self.progress.add_task("", total=(self.rounds + 1) * len(names))
        try:
            for turn in range(self.rounds + 1):
                start = turn % len(names)
                for name in names[start:] + names[:start]:
                    round_ = f"round {turn} of {self.rounds}" if turn else "warming up"
                    self.progress.update(bar, description=f"  {round_}, {name}")
                    metrics = subjects[name]()
                    if turn:
                        self.record(name, metrics)
                    self.progress.advance(bar)
        finally:
            self.progress.remove_task(bar)

    def record(self, subject: str, metrics: Mapping[str, float]) -> None:
        """Keep what was measured of a subject once."""
        for metric, value in metrics.items():
            self.samples[subject][metric].append(value)

    def skip(self, subject: str, why: str) -> None:
        """Say why a subject is not measured."""
        self.skipped[subject] = why


@dataclass(frozen=True)
class Workload:
    """Something to measure.

    Attributes:
        name: by which it is chosen.
        title: what is done, in one line.
        measure: does it.
        figures: what follows from it, with the targets.
        plots: that are drawn of it.
    """

    name: str
    title: str
    measure: Callable[[Run], None]
    figures: tuple[Figure, ...]
    plots: tuple[Plot, ...] = ()

    def outcome(self, run: Run, machine: Machine) -> Outcome:
        samples = {subject: dict(metrics) for subject, metrics in run.samples.items()}
        return Outcome(
            name=self.name,
            title=self.title,
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            machine=machine,
            rounds=run.rounds,
            samples=samples,
            skipped=run.skipped,
            findings=[find(figure, samples) for figure in self.figures],
            plots=list(self.plots),
        )
