"""Run the benchmarks, or some of them, print what they found, and keep it: `make bench` does that.

Subjects are measured in turns, so that what disturbs one disturbs all: only the ratios mean something.
"""

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from machine import this_machine
from report import figures_table, publish, samples_table
from results import Outcome, load, save
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from workload import Run, UnavailableError, Workload
from workloads import WORKLOADS

ROUNDS, SECONDS = 5, 2.0
QUICK_ROUNDS, QUICK_SECONDS = 2, 1.0
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("only", nargs="*", help=f"which: {', '.join(names)}; all of them unless named")
    parser.add_argument("--quick", action="store_true", help="a try: short, and nothing is kept")
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS} unless told otherwise; fewer are not kept")
    options = parser.parse_args()
    if unknown := set(options.only) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [workload for workload in WORKLOADS if not options.only or workload.name in options.only]
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    keeps = not options.quick and rounds >= ROUNDS
    console = Console()
    outcomes = []
    failures = 0
    with Progress(*COLUMNS, console=console) as progress:
        bar = progress.add_task("", total=len(chosen))
        for workload in chosen:
            progress.update(bar, description=workload.title)
            try:
                outcome = measured(workload, rounds, quick=options.quick, progress=progress)
                outcomes.append(outcome)
                if keeps:
                    keep(outcome, names)
            except UnavailableError as error:
                console.print(f"{workload.name} is skipped: {error}", markup=False)
            except Exception:  # noqa: BLE001
                # One that fails takes none of the others with it.
                console.print(f"{workload.name} failed:\n{traceback.format_exc()}", markup=False)
                failures += 1
            progress.advance(bar)
    for outcome in outcomes:
        console.print(samples_table(outcome))
    if outcomes:
        console.print(figures_table(outcomes))
    console.print(this_machine().words)
    if keeps and outcomes:
        console.print("Kept in tests/bench/results.json; README.md and tests/bench/plots tell it.")
    sys.exit(failures > 0)


def measured(workload: Workload, rounds: int, *, quick: bool, progress: Progress) -> Outcome:
    """Measure a workload; nothing is left behind."""
    with tempfile.TemporaryDirectory(prefix="restpipe-bench-") as scratch:
        run = Run(rounds, QUICK_SECONDS if quick else SECONDS, quick, Path(scratch), progress)
        workload.measure(run)
        return workload.outcome(run, this_machine())


def keep(outcome: Outcome, order: list[str]) -> None:
    """Store an outcome, and publish it with the others."""
    results = load()
    results.put(outcome, order)
    save(results)
    publish(results)


if __name__ == "__main__":
    main()
