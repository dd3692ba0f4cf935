"""The HTTP service that a node passes requests on to: what names one, what does not, and what excludes it."""

import pytest

from restpipe.config import UpstreamAddress, load_client_settings, load_server_settings
from restpipe.config.upstreams import parse_upstream
from restpipe.exceptions import ConfigError


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path", "shown"),
    [
        ("http://127.0.0.1:9000", "http", "127.0.0.1", 9000, "", "http://127.0.0.1:9000"),
        ("http://localhost/", "http", "localhost", 80, "", "http://localhost"),
        ("https://printer.example/ui/", "https", "printer.example", 443, "/ui", "https://printer.example/ui"),
        ("https://[::1]:8443", "https", "::1", 8443, "", "https://[::1]:8443"),
        (" http://a:80/b%20c ", "http", "a", 80, "/b%20c", "http://a/b%20c"),
    ],
)
def test_a_url_is_read(text: str, scheme: str, host: str, port: int, path: str, shown: str) -> None:
    address = parse_upstream(text)
    assert address == UpstreamAddress(scheme, host, port, path)
    assert str(address) == shown


def test_a_unix_socket_is_read() -> None:
    address = parse_upstream("unix:/run/app.sock")
    assert address is not None
    assert (str(address.socket), address.scheme, address.authority) == ("/run/app.sock", "http", "localhost")
    assert str(address) == "unix:/run/app.sock"


def test_an_empty_text_is_no_service() -> None:
    assert parse_upstream(" ") is None


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9000", "9000", "ftp://a", "ws://a", "http://", "http:///x", "http://a:b", "http://a:99999",
        "http://user:secret@a", "http://a?x=1", "http://a/?", "http://a#x", "http://a/b//c", "http://a/../b",
        "http://a/b c", "http://a b", "unix:app.sock", "unix:",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^should "):
        parse_upstream(text)


@pytest.mark.parametrize("load", [load_server_settings, load_client_settings])
def test_a_service_and_a_class_of_ones_own_exclude_each_other_and_the_message_names_both(
    load: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RP_EVENT_HANDLER_FQ_CLASS", "mine.Handler")
    with pytest.raises(ConfigError) as caught:
        load({"upstream": "http://127.0.0.1:9000"})
    assert "--upstream='http://127.0.0.1:9000'" in str(caught.value)
    assert "RP_EVENT_HANDLER_FQ_CLASS, which is mine.Handler" in str(caught.value)


def test_a_service_needs_nothing_but_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_UPSTREAM", "http://127.0.0.1:9000")
    assert load_client_settings().upstream == UpstreamAddress("http", "127.0.0.1", 9000)


@pytest.mark.parametrize("load", [load_server_settings, load_client_settings])
@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("RP_EVENT_HANDLER_FQ_CLASS", "mine.Handler", "RP_EVENT_HANDLER_FQ_CLASS, which is mine.Handler"),
        ("RP_UPSTREAM", "http://127.0.0.1:9000", "or RP_UPSTREAM: one of them serves"),
        ("RP_FILES", ".", "RP_FILES='.': should be empty, or RP_ASGI: what it names serves everything"),
    ],
)
def test_an_application_serves_alone(
    load: type, variable: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load({"asgi": "shop.web:app"}).asgi == "shop.web:app"
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load({"asgi": "shop.web:app"})
    assert named in str(caught.value)


@pytest.mark.parametrize("text", ["shop", "shop.web.app", "shop:", ":app", "shop:app()", "a b:app", "a/b.py:app"])
def test_what_is_no_place_of_an_application_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"should name an ASGI application, such as package\.module:app"):
        load_client_settings({"asgi": text})
