"""Where the time of a small request goes: each subject adds a layer to the one before."""

import asyncio
import time
from functools import partial

import uvloop
import wrk
from contenders import BARE, PIPE, Contender, bare_asgi, restpipe
from echo_pipe import identity
from endpoints import PATH
from processes import HERE, cpu_seconds, free_port, running
from results import Figure
from workload import Run, Workload

from restpipe.identity import Authority
from restpipe.protocol.limits import Limits
from restpipe.transport.carrier import Carrier
from restpipe.transport.grpc_client import dial

GRPC, MEMORY = "a gRPC message and its answer", "both nodes in one process"
CONNECTIONS = 64
CPU, ALONE = f"CPU µs a request, {CONNECTIONS} connections", "p50 ms, 1 connection"


def ask(contender: Contender, seconds: float) -> dict[str, float]:
    used = cpu_seconds(*contender.processes)
    seen = wrk.load(contender.url, CONNECTIONS, seconds)
    used = cpu_seconds(*contender.processes) - used
    return {CPU: used / seen.requests * 1e6, ALONE: wrk.load(contender.url, 1, seconds).p50 * 1e3}


def echo(runner: asyncio.Runner, carrier: Carrier, seconds: float) -> dict[str, float]:
    """Have one frame after the other sent back."""

    async def one_after_the_other() -> list[float]:
        took = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            await carrier.write(b"x" * 128)
            await carrier.read()
            took.append(time.perf_counter() - began)
        return sorted(took)

    took = runner.run(one_after_the_other())
    return {ALONE: took[len(took) // 2] * 1e3}


def measure(run: Run) -> None:
    wrk.check()
    authority = Authority.create(run.scratch / "identities")
    authority.issue("server", "server")
    authority.issue("client", "client")
    web = free_port()
    with (
        bare_asgi(run, 0) as bare,
        running("python", HERE / "one_process.py", str(web), until=r"listening on \d+") as memory,
        restpipe(run, 0) as pipe,
        running("python", HERE / "echo_pipe.py", authority.directory, "frames", until=r"listening on \d+") as peer,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        joined = Contender(f"http://127.0.0.1:{web}{PATH}", (memory,))
        port = int(peer.wait_for(r"listening on (\d+)")[1])
        dialled = dial("127.0.0.1", port, identity(authority.directory, "client"), Limits(), connect_timeout=10)
        carrier = runner.run(dialled)
        runner.run(carrier.read())
        contenders = {BARE: bare, MEMORY: joined, PIPE: pipe}
        run.interleave(
            {name: partial(ask, each, run.seconds) for name, each in contenders.items()}
            | {GRPC: partial(echo, runner, carrier, run.seconds)}
        )
        runner.run(carrier.close())


WORKLOAD = Workload(
    name="layers",
    title="where the time of a small GET goes",
    measure=measure,
    figures=(
        *(
            Figure(text=f"processor time, {CONNECTIONS} connections: {subject}", subject=subject, metric=CPU, unit="µs")
            for subject in (BARE, MEMORY, PIPE)
        ),
        *(
            Figure(text=f"p50, 1 connection: {subject}", subject=subject, metric=ALONE, unit="ms")
            for subject in (BARE, MEMORY, GRPC, PIPE)
        ),
    ),
)
