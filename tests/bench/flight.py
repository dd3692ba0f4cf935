"""Cost as work grows: exchanges in flight on one pipe, each followed by another as soon as it is answered."""

import asyncio
import time
from functools import partial

import uvloop
import wrk
from e2e_processes import Process
from echo_pipe import connect
from endpoints import PATH
from processes import HERE, cpu_seconds, nodes, running
from results import Curve, Figure
from workload import Run, UnavailableError, Workload

from restpipe.cli.process import spare_the_garbage_collector
from restpipe.identity import Authority
from restpipe.pipe import Pipe
from restpipe_pb.v1.pipe_pb2 import Goaway, Request

IN_FLIGHT = (1, 4, 16, 64, 256, 1024, 4096)
# Below, a request waits mostly for wake-ups, which those in flight share: each one more makes all cheaper.
SATURATED = "64"
# wrk's one thread, which needs the same two cores, is what more would measure.
CONNECTIONS = (1, 4, 16, 64, 256, 1024)
# A thousand connections take their time to open.
HTTP_SECONDS = 2
TIME, CPU, HTTP_TIME, HTTP_CPU = "µs a request", "CPU µs a request", "µs a request by HTTP", "CPU µs a request by HTTP"


async def exchanges(pipe: Pipe, in_flight: int, seconds: float) -> int:
    """Keep so many exchanges in flight for some seconds; return how many there were."""
    end = time.perf_counter() + seconds
    body = b"x" * 64

    async def one_after_the_other() -> int:
        count = 0
        while count == 0 or time.perf_counter() < end:
            answer = await pipe.call(Request(verb="get", noun="echo", body=body, timeout_ms=60_000))
            count += len(await answer.body.read(1024)) // len(body)
        return count

    return sum(await asyncio.gather(*(one_after_the_other() for _ in range(in_flight))))


def by_pipe(runner: asyncio.Runner, pipe: Pipe, peer: Process, in_flight: int, seconds: float) -> dict[str, float]:
    started, used = time.perf_counter(), time.process_time() + cpu_seconds(peer)
    count = runner.run(exchanges(pipe, in_flight, seconds))
    elapsed = time.perf_counter() - started
    return {TIME: elapsed / count * 1e6, CPU: (time.process_time() + cpu_seconds(peer) - used) / count * 1e6}


def measure_pipe(run: Run) -> None:
    authority = Authority.create(run.scratch / "identities")
    authority.issue("server", "server")
    authority.issue("client", "client")

    async def finish() -> None:
        pipe.close(Goaway.SHUTDOWN, "measured")
        await life

    with (
        running("python", HERE / "echo_pipe.py", authority.directory, until=r"listening on \d+") as peer,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        port = int(peer.wait_for(r"listening on (\d+)")[1])
        pipe, life = runner.run(connect(authority.directory, port))
        spare_the_garbage_collector()
        run.interleave(
            {f"{number:,}": partial(by_pipe, runner, pipe, peer, number, run.seconds) for number in IN_FLIGHT}
        )
        runner.run(finish())


def measure_http(run: Run) -> None:
    # By default a server lets fewer in, so that those are answered soon.
    with nodes(run, RP_WEB_MAX_REQUESTS=str(2 * max(CONNECTIONS))) as pair:

        def by_http(connections: int) -> dict[str, float]:
            used = cpu_seconds(pair.server, pair.client)
            seen = wrk.load(pair.server.web + PATH, connections, HTTP_SECONDS)
            used = cpu_seconds(pair.server, pair.client) - used
            return {HTTP_TIME: 1e6 / seen.rate, HTTP_CPU: used / seen.requests * 1e6}

        run.interleave({f"{number:,}": partial(by_http, number) for number in CONNECTIONS})


def measure(run: Run) -> None:
    measure_pipe(run)
    try:
        wrk.check()
        measure_http(run)
    except UnavailableError as reason:
        run.skip("by HTTP", str(reason))


WORKLOAD = Workload(
    name="flight",
    title="exchanges in flight on one pipe",
    measure=measure,
    figures=(
        Figure(text=f"time a request, 1 to {SATURATED}", subject="1", metric=TIME, to=SATURATED),
        *(
            Figure(text=f"time a request, {many} to {SATURATED}", subject=many, metric=TIME, to=SATURATED, at_most=1.3)
            for many in ("256", "1,024", "4,096")
        ),
        Figure(text=f"processor time, 4,096 to {SATURATED}", subject="4,096", metric=CPU, to=SATURATED, at_most=1.3),
    ),
    plots=(Curve(metric=TIME, subjects="exchanges in flight"),),
)
