"""Small requests: a GET whose answer is 40 bytes of JSON."""

from functools import partial

from contenders import ALL, BARE, PIPE, PLAIN, SSH, Contender, standing
from processes import cpu_seconds
from results import Bars, Figure
from workload import Run, Workload
from wrk import check, load

RATE, P50, P99, CPU = "requests/s", "p50 ms", "p99 ms", "CPU µs a request"


def ask(contender: Contender, connections: int, seconds: float) -> dict[str, float]:
    """Load one contender for some seconds."""
    before = cpu_seconds(*contender.processes)
    seen = load(contender.url, connections, seconds)
    used = cpu_seconds(*contender.processes) - before
    return {RATE: seen.rate, P50: seen.p50 * 1e3, P99: seen.p99 * 1e3, CPU: used / seen.requests * 1e6}


def measure(run: Run, connections: int) -> None:
    check()
    with standing(run, ALL) as contenders:
        run.interleave({name: partial(ask, each, connections, run.seconds) for name, each in contenders.items()})


MANY = Workload(
    name="small",
    title="small GET, 64 connections",
    measure=partial(measure, connections=64),
    figures=(
        Figure(text="rate, of plain FastAPI", subject=PIPE, metric=RATE, to=PLAIN, at_least=1.8),
        Figure(text="rate, of `ssh -R`", subject=PIPE, metric=RATE, to=SSH, at_least=1.8),
        Figure(text="rate, of bare ASGI", subject=PIPE, metric=RATE, to=BARE, at_least=0.5),
        Figure(text="processor time, of plain FastAPI", subject=PIPE, metric=CPU, to=PLAIN),
        Figure(text="processor time, of `ssh -R`", subject=PIPE, metric=CPU, to=SSH),
    ),
    plots=(Bars(metric=RATE, to=PLAIN), Bars(metric=CPU, to=PLAIN)),
)

ONE = Workload(
    name="single",
    title="small GET, 1 connection",
    measure=partial(measure, connections=1),
    figures=(
        Figure(text="p50, of `ssh -R`", subject=PIPE, metric=P50, to=SSH, at_most=1.5),
        Figure(text="p99, of `ssh -R`", subject=PIPE, metric=P99, to=SSH, at_most=1.0),
    ),
    plots=(Bars(metric=P50, to=SSH), Bars(metric=P99, to=SSH)),
)
