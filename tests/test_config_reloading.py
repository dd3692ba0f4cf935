"""Settings are read anew while a node runs: what it takes, what waits for a restart, and what is wrong."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from restpipe.config import ServerSettings, load_server_settings, reread
from restpipe.exceptions import ConfigError

Write = Callable[[str], None]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Write:
    """Write the user config module, always of the same second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setitem(sys.modules, "policy", sys)  # so that it is forgotten afterwards
    del sys.modules["policy"]

    def write(text: str) -> None:
        (tmp_path / "policy.py").write_text(text)
        os.utime(tmp_path / "policy.py", (1_700_000_000, 1_700_000_000))

    return write


load: Callable[[], ServerSettings] = partial(load_server_settings, {"user_config_module": "policy"})


def test_the_module_is_read_anew_and_not_what_was_compiled_of_it(module: Write) -> None:
    module("RELAY = 'a>b'\nALLOWED_CLIENTS = 'a,b'\n")
    first = load()
    module("RELAY = 'a>c'\n")
    found = reread(first, load)
    assert (found.settings.relay, found.settings.allowed_clients) == (("a>c",), ("*",))
    assert found.taken == ("RP_ALLOWED_CLIENTS is '*', was 'a,b'", "RP_RELAY is 'a>c', was 'a>b'")
    module("RELAY = 'a>d'\n")
    assert reread(found.settings, load).settings.relay == ("a>d",)


def test_what_a_node_takes_only_at_its_start_stays_and_is_named_each_time(module: Write) -> None:
    module("")
    first = load()
    module("REQUEST_TIMEOUT_S = 5\nWEB_TOKEN = 'secret'\nALLOW = 'shop-*'\n")
    found = reread(first, load)
    assert found.settings.request_timeout_s == first.request_timeout_s
    assert found.settings.allow == ("shop-*",)
    assert set(found.pending) == {"RP_REQUEST_TIMEOUT_S", "RP_WEB_TOKEN"}
    again = reread(found.settings, load)
    assert (again.taken, again.pending) == ((), found.pending)


def test_where_nothing_changed_nothing_is_told(module: Write) -> None:
    module("RELAY = 'a>b'\n")
    first = load()
    found = reread(first, load)
    assert (found.settings, found.taken, found.pending) == (first, (), ())


def test_options_and_variables_still_beat_the_module(module: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_RELAY", "a>b")
    module("")
    first = load()
    module("RELAY = 'a>c'\n")
    assert reread(first, load).taken == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("RELAY = 'ab'\n", r"policy\.RELAY='ab': should be rules"),
        ("RELAY = (\n", "importing 'policy' failed: SyntaxError"),
        ("1 / 0\n", "importing 'policy' failed: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_is_told_and_what_was_there_before_stays(module: Write, text: str, fault: str) -> None:
    module("RELAY = 'a>b'\n")
    first = load()
    module(text)
    with pytest.raises(ConfigError, match=fault):
        reread(first, load)
    module("RELAY = 'a>b'\n")
    assert reread(first, load).settings == first


def test_a_module_that_vanished_is_told(module: Write, tmp_path: Path) -> None:
    module("RELAY = 'a>b'\n")
    first = load()
    (tmp_path / "policy.py").unlink()
    with pytest.raises(ConfigError, match="no module named 'policy'"):
        reread(first, load)


def test_without_a_module_nothing_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_RELAY", "a>b")
    settings = load_server_settings()
    assert reread(settings, load_server_settings).taken == ()
