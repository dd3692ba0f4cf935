"""The soak: real nodes under load and under faults, and the verdict. `python soak.py --help`."""

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from calls import KINDS, STREAMED, Call, Told
from census import Census, beyond_idle, census_of, growth, memory_of
from checker import BACK, GROWTH, RULES, Violation, check_calls
from injector import Injected, Injector
from nodes_under_test import Nodes
from rich.console import Console
from rich.table import Table
from traffic import SERVER, Traffic

Result = TypeVar("Result")
TOLD: tuple[Told, ...] = ("done", "no", "yes", "unknown", "broken", "left", "none")
WAYS = ("server to client", "client to server", "client to client")
# Seconds after the end of the load by which every node is idle.
IDLE_BY = 10.0
# Seconds in which every client is back once the last fault is undone, on a busy machine too.
BACK_BY = 60.0
# Seconds between two looks at the memory of the nodes.
SAMPLED_EVERY = 3.0
# MiB by which a node may grow in a minute under steady load.
MOST_GROWTH = 1.0


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        seed: of everything that is left to chance.
        clients: number of client nodes, each a process.
        duration: seconds of faults.
        settling: seconds of load without faults after them, for nodes that were started anew to get as warm as others.
        steady: seconds of load after those, in which memory may not grow; 0 for none.
        interval: seconds from one fault to the next.
        longest: seconds that a fault may last.
        rate: calls a second.
        streams: calls with streamed bodies a second, beside them.
        grace: seconds that an answer may come after its deadline.
        settings: of the nodes.
    """

    seed: int
    clients: int = 20
    duration: float = 300.0
    settling: float = 60.0
    steady: float = 120.0
    interval: float = 5.0
    longest: float = 15.0
    rate: float = 100.0
    streams: float = 3.0
    grace: float = 1.0
    # What is remembered of keys grows until they are forgotten; that is to happen while memory is looked at.
    settings: dict[str, str] = field(default_factory=lambda: {"RP_IDEMPOTENCY_LIFETIME_S": "10"})


@dataclass
class Verdict:
    """What came of it."""

    calls: list[Call]
    injected: list[Injected]
    violations: list[Violation]
    growth: dict[str, float]


async def soak(plan: Plan, directory: Path, tell: Callable[[str], object] = lambda _: None) -> Verdict:
    """Run the nodes in an empty directory, hurt them under load, and judge; tell what is done meanwhile."""
    grown: dict[str, float] = {}
    tell("starting the nodes")
    async with Nodes(directory, plan.clients, **plan.settings) as nodes:
        await warm_up(nodes)
        idle = await census(nodes)
        traffic = Traffic(nodes.webs, plan.rate, plan.streams, random.Random(plan.seed))
        injector = Injector(nodes, plan.interval, plan.longest, random.Random(plan.seed))
        tell(f"a fault every {plan.interval:g} s, for {plan.duration:g} s")
        violations = await under_load(traffic, hurt_and_reach(nodes, injector, plan.duration))
        sound_since = asyncio.get_running_loop().time()
        if plan.steady:
            tell(f"load without faults for {plan.settling:g} s")
            await under_load(traffic, asyncio.sleep(plan.settling))
            tell(f"steady load for {plan.steady:g} s, in which memory may not grow")
            samples = await under_load(traffic, memory_for(nodes, plan.steady))
            grown = {name: growth(samples[name]) for name in nodes.names}
        violations += check_calls(
            traffic.calls, nodes.ledger.entries(), nodes.ledger.taken(),
            grace=plan.grace, sound_since=sound_since, disturbed=nodes.disturbed, stalled=traffic.stalled,
        )  # fmt: skip
        tell("no load any more: nothing may be left of it")
        violations += await never_idle(nodes, idle)
    violations += [Violation(GROWTH, f"{name}: {mib:.2f} MiB") for name, mib in grown.items() if mib > MOST_GROWTH]
    return Verdict(traffic.calls, injector.injected, violations, grown)


async def under_load(traffic: Traffic, what: Awaitable[Result]) -> Result:
    """Do something while there is traffic, and return when each call has its end."""
    over = asyncio.Event()
    load = asyncio.create_task(traffic.run(over))
    try:
        return await what
    finally:
        over.set()
        await load


async def hurt_and_reach(nodes: Nodes, injector: Injector, seconds: float) -> list[Violation]:
    """Do faults for so long, and undo them; return the nodes that are not reached afterwards."""
    await injector.run(seconds)
    return await never_back(nodes)


async def warm_up(nodes: Nodes) -> None:
    """Have every node start the threads that it may have, and open what it opens once."""

    async def burst(asked: str, path: str) -> None:
        await asyncio.gather(*(nodes.webs[asked].get(f"{path}/note/sync//warm{i}/0.1") for i in range(16)))

    for name in nodes.clients:
        await asyncio.gather(burst(SERVER, f"/client/{name}"), burst(name, "/server"))
    os.truncate(nodes.ledger.path, 0)


async def census(nodes: Nodes) -> dict[str, Census]:
    """Count what each node holds."""
    first = nodes.clients[0]
    counted = {SERVER: await census_of(nodes.pid(SERVER), nodes.webs[SERVER], (nodes.webs[first], "/server"))}
    for name in nodes.clients:
        way = nodes.webs[SERVER], f"/client/{name}"
        counted[name] = await census_of(nodes.pid(name), nodes.webs[name], way)
    return counted


async def never_back(nodes: Nodes) -> list[Violation]:
    """Wait until every client is reached, both ways; return those that are not."""
    headers = {"Prefer": f"wait={BACK_BY:g}", "X-Event-Timeout": f"{BACK_BY:g}"}

    async def reach(asked: str, path: str) -> list[Violation]:
        answer = await nodes.webs[asked].get(f"{path}/tasks", headers=headers, timeout=2 * BACK_BY)
        return [] if answer.status_code == 200 else [Violation(BACK, f"{asked}{path}: {answer.text}")]

    ways = [(SERVER, f"/client/{name}") for name in nodes.clients] + [(name, "/server") for name in nodes.clients]
    return [violation for found in await asyncio.gather(*(reach(*way) for way in ways)) for violation in found]


async def never_idle(nodes: Nodes, idle: dict[str, Census]) -> list[Violation]:
    """Return what the nodes still hold when they should be idle."""
    loop = asyncio.get_running_loop()
    by = loop.time() + IDLE_BY
    while True:
        now = await census(nodes)
        found = [violation for name in nodes.names for violation in beyond_idle(name, idle[name], now[name])]
        if not found or loop.time() > by:
            return found
        await asyncio.sleep(0.5)


async def memory_for(nodes: Nodes, seconds: float) -> dict[str, list[tuple[float, int]]]:
    """Return for each node how many bytes it held at which second, from time to time."""
    now = asyncio.get_running_loop().time
    samples: dict[str, list[tuple[float, int]]] = {name: [] for name in nodes.names}
    end = now() + seconds
    while now() < end:
        for name, held in (await memory(nodes)).items():
            samples[name].append((now(), held))
        await asyncio.sleep(SAMPLED_EVERY)
    return samples


async def memory(nodes: Nodes) -> dict[str, int]:
    """Return the bytes that each node holds when it has nothing to give back."""
    first = nodes.clients[0]
    ways = {SERVER: (first, "/server")} | {name: (SERVER, f"/client/{name}") for name in nodes.clients}
    for asked, path in ways.values():
        (await nodes.webs[asked].get(f"{path}/collected")).raise_for_status()
    return {name: memory_of(nodes.pid(name)) for name in nodes.names}


def tables(verdict: Verdict) -> list[Table]:
    """Return what was done, what callers were told, and what was found."""
    faults = Table("at, s", "node", "fault", "for, s", title="faults")
    for each in verdict.injected:
        faults.add_row(f"{each.at:.0f}", each.node, each.fault, f"{each.seconds:.1f}")
    outcomes = Table("request", "calls", *TOLD, "repeated", "slowest, s", title="what callers were told: executed?")
    for kind in (*KINDS, *STREAMED):
        outcomes.add_row(kind.name, *_counted([call for call in verdict.calls if call.kind == kind]))
    outcomes.add_section()
    for way in WAYS:
        outcomes.add_row(way, *_counted([call for call in verdict.calls if way_of(call) == way]))
    broken = Counter(violation.rule for violation in verdict.violations)
    rules = Table("must never be", "was", title="verdict")
    for rule in RULES:
        rules.add_row(rule, str(broken[rule]), style="bold red" if broken[rule] else "green")
    if verdict.growth:
        of_server = verdict.growth[SERVER]
        least, *_, most = sorted(mib for name, mib in verdict.growth.items() if name != SERVER)
        rules.caption = f"MiB a minute: {of_server:+.2f} the server, {least:+.2f} to {most:+.2f} its clients"
    return [faults, outcomes, rules]


def way_of(call: Call) -> str:
    """Return whom a call went to, from whom."""
    to_clients, to_server, beyond = WAYS
    return {call.asked: to_clients, call.serving: to_server}.get(SERVER, beyond)


def _counted(calls: Sequence[Call]) -> list[str]:
    told = Counter(call.told for call in calls)
    repeated = sum(call.attempts > 1 for call in calls)
    slowest = max((call.ended - call.begun for call in calls), default=0)
    return [str(len(calls)), *(str(told[each]) for each in TOLD), str(repeated), f"{slowest:.1f}"]


def main(arguments: Sequence[str]) -> int:
    """Run the soak from a command line; return 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of an earlier run, to repeat it")
    parser.add_argument("--duration", type=float, default=Plan.duration, help="seconds of faults (%(default)g)")
    parser.add_argument("--clients", type=int, default=Plan.clients, help="client nodes (%(default)d)")
    chosen = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:  # a log has no width
        console.width = 120

    def tell(what: str) -> None:
        console.print(f"{datetime.now():%H:%M:%S} {what}", highlight=False)

    console.print(f"seed {chosen.seed}: {chosen.clients} clients, {chosen.duration:g} s of faults", highlight=False)
    with tempfile.TemporaryDirectory(prefix="soak") as directory:
        verdict = asyncio.run(soak(Plan(**vars(chosen)), Path(directory), tell))
    for table in tables(verdict):
        console.print(table)
    for violation in verdict.violations:
        console.print(f"{violation.rule}: {violation.what}", style="red", markup=False, highlight=False)
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
