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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("only", nargs="*", help=f"which: {', '.join(names)}; all of them unless named")
    parser.add_argument("--quick", action="store_true", help="a try: short, and nothing is kept")
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS} unless told otherwise")
    options = parser.parse_args()
    if unknown := set(options.only) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [workload for workload in WORKLOADS if not options.only or workload.name in options.only]
    console = Console()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    outcomes, failed = _run(chosen, rounds, options.quick, console)
    for outcome in outcomes:
        console.print(samples_table(outcome))
    console.print(figures_table(outcomes))
    console.print(this_machine().words)
    if not options.quick and outcomes:
        results = load()
        for outcome in outcomes:
            results.put(outcome, names)
        save(results)
        publish(results)
        console.print("Kept in tests/bench/results.json; README.md and tests/bench/plots tell it.")
    sys.exit(failed)


def _run(chosen: list[Workload], rounds: int, quick: bool, console: Console) -> tuple[list[Outcome], bool]:
    """Run workloads one after the other; one that fails takes none of the others with it. Tell whether one did."""
    machine = this_machine()
    outcomes = []
    failed = False
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(chosen))
        for workload in chosen:
            progress.update(bar, description=workload.title)
            with tempfile.TemporaryDirectory(prefix="restpipe-bench-") as scratch:
                run = Run(rounds, QUICK_SECONDS if quick else SECONDS, quick, Path(scratch), progress)
                try:
                    workload.measure(run)
                    outcomes.append(workload.outcome(run, machine))
                except UnavailableError as error:
                    console.print(f"{workload.name} is skipped: {error}", markup=False)
                except Exception:  # noqa: BLE001
                    console.print(f"{workload.name} failed:\n{traceback.format_exc()}", markup=False)
                    failed = True
            progress.advance(bar)
    return outcomes, failed


if __name__ == "__main__":
    main()
