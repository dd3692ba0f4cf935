"""The log as JSON, of real nodes: whoever has a failure in hand finds its line on the node that handled it."""

import json
from pathlib import Path

from e2e_curl import curl
from e2e_processes import site_with_handlers

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_failure_is_found_in_the_log_of_the_other_node_by_its_id_and_no_secret_is(tmp_path: Path) -> None:
    with site_with_handlers(tmp_path) as site:
        server, client = site.pair(RP_LOG_FORMAT="json", RP_WEB_TOKEN="the-token")
        client.may_raise = True
        options = ("-H", "Authorization: Bearer the-token", "-H", f"traceparent: {TRACEPARENT}", "-X", "GET")
        failed = curl(f"{server.web}/client/client/boom", *options, data=b"the body")
        client.wait_for('"traceparent"')
        ended = [node.end() for node in (server, client)]
        logs = [[json.loads(line) for line in output.splitlines() if line.startswith("{")] for output in ended]
        assert [log[-1]["message"] for log in logs] == ["stopped", "stopped"]
        (told,) = [line for line in logs[1] if line["level"] == "error"]
        assert failed.json["instance"] == f"urn:restpipe:request:{told['request_id']}"
        assert told["event"] == "get boom"
        assert told["traceparent"] == TRACEPARENT
        assert told["exception"].rstrip().endswith("ValueError: it went boom, süß")
        assert not any(secret in output for output in ended for secret in ("the-token", "the body"))
