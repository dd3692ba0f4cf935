"""The soak, short: `make soak` runs the long one, with more clients and the timers that users have."""

from pathlib import Path

import pytest
from calls import KINDS, STREAMED
from rich.console import Console
from soak import WAYS, Plan, soak, tables, way_of

SEED = 4
# Two processors carry no twenty clients beside the other tests: each is a process that takes a second to start.
SHORT = Plan(
    seed=SEED, clients=4, duration=30.0, steady=0.0, interval=2.5, longest=4.0, rate=40.0, streams=1.0, grace=5.0,
    settings={"RP_CLIENT_HEARTBEAT_INTERVAL_S": "0.5", "RP_CLIENT_HEARTBEAT_TIMEOUT_S": "2"},
)  # fmt: skip


@pytest.mark.timeout(300)
async def test_nothing_is_lost_doubled_mixed_up_or_left_behind_whatever_fails(tmp_path: Path) -> None:
    verdict = await soak(SHORT, tmp_path)
    for table in tables(verdict):
        Console().print(table)
    assert verdict.violations == []
    told = {call.told for call in verdict.calls}
    assert {"done", "no", "unknown"} <= told, "the faults hit nothing"
    for way in WAYS:
        whole = {call.kind for call in verdict.calls if call.told == "done" and way_of(call) == way}
        assert set(KINDS) <= whole, f"nothing goes {way}"
    assert any(call.kind in STREAMED and call.told == "done" for call in verdict.calls)
    assert any(call.attempts > 1 for call in verdict.calls), "nothing was repeated"
    assert len(verdict.injected) >= 10
