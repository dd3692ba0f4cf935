"""The fixture for tests that are not asynchronous."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import restpipe
from restpipe.exceptions import PeerAbsentError
from restpipe.testing import BlockingNodes

Join = Callable[..., BlockingNodes]


class Box(restpipe.ClientEventHandler):
    def get_square(self, ctx: restpipe.EventContext, post_data: Any, x: int) -> int:
        return x * x

    def get_caller(self, ctx: restpipe.EventContext, post_data: Any) -> str:
        return ctx.caller


def test_a_plain_test_calls_both_ways_and_by_http(restpipe_join: Join) -> None:
    nodes = restpipe_join(server=Box, clients={"box": Box})
    assert nodes.server.client("box").call("get", "square", 12).data == 144
    assert nodes.client("box").call("get", "caller").data == "box"
    assert nodes.server.http("GET", "/client/box/square", params={"x": 3}).json() == 9
    assert nodes.client("box").http("GET", "/server/caller").json() == "box"


def test_links_break_for_plain_tests_too(restpipe_join: Join) -> None:
    nodes = restpipe_join(clients={"box": Box})
    link, box = nodes.link("box"), nodes.server.client("box")
    with link.down(), pytest.raises(PeerAbsentError):
        box.call("get", "caller", wait=0)
    link.cut()
    link.delay = 0.001
    assert (box.call("get", "caller").data, link.delay) == ("server", 0.001)
    with link.stalled(), pytest.raises(restpipe.EventError):
        box.call("get", "caller", timeout=0.05)


def test_clients_call_each_other_in_plain_tests_too(restpipe_join: Join) -> None:
    nodes = restpipe_join(server={"relay": "till>box"}, clients={"box": Box, "till": Box})
    assert nodes.client("till").client("box").call("get", "caller").data == "till"


def test_several_may_be_joined_in_one_test(restpipe_join: Join) -> None:
    for handler, number in ((Box, 4), (Box(), 9)):
        nodes = restpipe_join(clients={"box": handler})
        assert nodes.server.client("box").call("get", "square", 3).data == 9, number


def test_nothing_of_the_tests_before_is_left() -> None:
    assert not [thread for thread in threading.enumerate() if thread.name == "restpipe.testing"]


def test_the_plugin_is_found_by_pytest_and_costs_it_nothing() -> None:
    program = """
import sys
import restpipe.pytest_plugin
assert not {"grpc", "fastapi", "pydantic", "httpx", "restpipe.testing"} & set(sys.modules)
from importlib.metadata import entry_points
(ours,) = entry_points(group="pytest11", name="restpipe")
assert ours.load() is restpipe.pytest_plugin
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
