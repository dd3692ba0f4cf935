"""What the log shows of those who attack, and what an operator reads who made a mistake."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import forge
import pytest
from e2e_curl import curl
from e2e_processes import Site, site_with_handlers
from hostile_peers import hostile_peer

from restpipe.identity import Role
from restpipe_pb.v1.pipe_pb2 import Goaway, Header, Request, Response

CONTROLS = "\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 00:00:00,000 INFO    faked\x9b1m"
SECRETS = ("the-token", "the-body", "the-argument", "the-header", "the-answer", "PRIVATE KEY")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_with_handlers(tmp_path) as site:
        yield site


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_the_log_shows_neither_secrets_nor_anything_that_moves_a_cursor(site: Site, log_format: str) -> None:
    server = site.server(DEBUG="1", RP_WEB_TOKEN="the-token", RP_LOG_FORMAT=log_format)
    site.identity("client", "mallory")
    async with hostile_peer(site.directory, "mallory", server.pipe_port) as peer:
        await peer.greet(software=f"evil{CONTROLS}")
        headers = [Header(name="x", value="the-header"), Header(name="authorization", value="the-token")]
        await peer.ask(1, "echo", "post", body=b"the-body", headers=headers)
        await peer.ask(3, f"nowhere{CONTROLS}")
        await peer.ask(5, "sum", arguments=["the-argument"])
        await peer.ask(7, "boom")
        url = f"{server.web}/client/mallory/it//the-argument"
        asking = asyncio.create_task(
            asyncio.to_thread(curl, url, "-H", "Authorization: Bearer the-token", data=b"the-body")
        )
        while not isinstance((received := await peer.receive() or (0, None))[1], Request):
            assert received[1] is not None
        await peer.send((received[0], Response(status=200, body=b"the-answer")))
        assert (await asking).text == "the-answer"
        assert (await asyncio.to_thread(curl, url, "-H", "Authorization: Bearer the-tokens")).status == 401
        await peer.send((0, Goaway(reason=Goaway.TAKEOVER, message=f"bye{CONTROLS}")))
        await peer.end()
    await asyncio.to_thread(server.wait_for, "client mallory disconnected")
    server.may_raise = True  # get_boom does, and its traceback is the operator's
    output = await asyncio.to_thread(server.end)
    assert not [secret for secret in SECRETS if secret in output]
    assert not [character for character in "\x1b\x07\r\x9b" if character in output]
    assert not [line for line in output.splitlines() if line.startswith("2026-01-01")]
    assert "evil" in output


def swapped(site: Site, role: Role) -> dict[str, str]:
    settings = site.identity(role, role)
    key, certificate = site.directory / f"{role}.key.pem", site.directory / f"{role}.crt.pem"
    shutil.copy(key, site.directory / "kept.pem")
    shutil.copy(certificate, key)
    shutil.copy(site.directory / "kept.pem", certificate)
    key.chmod(0o600)
    certificate.chmod(0o600)
    return settings


def readable(site: Site, role: Role) -> dict[str, str]:
    settings = site.identity(role, role)
    (site.directory / f"{role}.key.pem").chmod(0o640)
    return settings


def a_day_off(site: Site, role: Role) -> dict[str, str]:
    settings = site.identity(role, role)
    made = forge.ca().make(role, name=role, valid=forge.FUTURE)
    (site.directory / f"{role}.key.pem").write_bytes(made.key_pem)
    (site.directory / f"{role}.crt.pem").write_bytes(made.certificate_pem)
    (site.directory / "ca.crt.pem").write_bytes(forge.ca().pem)
    return settings


@pytest.mark.parametrize(
    ("mistake", "role", "cause"),
    [
        (swapped, "server", "swapped"),
        (readable, "client", "chmod 600"),
        (a_day_off, "client", "clock"),
    ],
)
def test_a_mistake_is_told_in_a_line_for_each_file_and_the_node_does_not_start(
    site: Site, mistake: object, role: Role, cause: str
) -> None:
    assert callable(mistake)
    output = site.run("restpipe", role, **mistake(site, role)).wait(code=1)
    assert cause in output
    lines = output.splitlines()
    assert len(lines) == (2 if mistake is swapped else 1)  # one for each file
    assert all(line.startswith(str(site.directory)) for line in lines)
