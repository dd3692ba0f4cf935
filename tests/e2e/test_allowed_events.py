"""`@allow` on methods and for a class, by the names in certificates, between processes and over real mutual TLS."""

from pathlib import Path

from e2e_curl import curl
from e2e_processes import Site

TILLS = """
from restpipe import ServerEventHandler, allow

@allow("shop-*", "office")
class Tills(ServerEventHandler):
    def get_price(self, ctx, post_data):
        return ctx.caller

    @allow("office")
    def post_price(self, ctx, post_data):
        with open("executed", "a") as executed:
            executed.write(ctx.caller + "\\n")
        return ctx.caller
"""


def test_an_event_is_for_the_certificates_that_its_method_names_and_otherwise_its_class_and_runs_for_no_other(
    tmp_path: Path,
) -> None:
    (tmp_path / "tills.py").write_text(TILLS)
    forged = ("-H", "X-Event-Caller: office")
    with Site(tmp_path) as site:
        server = site.server(RP_EVENT_HANDLER_FQ_CLASS="tills.Tills")
        for name, read, written in (("office", True, True), ("shop-1", True, False), ("other", False, False)):
            url = f"{site.client(server.pipe_port, name=name).web}/server/price"
            for options, allowed in (((), read), (("-X", "POST"), written)):
                answer = curl(url, *forged, *options)
                if allowed:
                    assert answer.json == name
                else:
                    assert answer.outcome == (403, 253, "no")
    assert (tmp_path / "executed").read_text() == "office\n"
