"""`/metrics`, for Prometheus: what the node counts, and what it is now, read when it is asked."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from statistics import median

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from restpipe.nodes.client import ClientNode
from restpipe.nodes.server import ServerNode
from restpipe.nodes.traffic import BOUNDS
from restpipe.version import __version__
from restpipe_pb.v1.pipe_pb2 import Goaway

_LE = (*map(str, BOUNDS), "+Inf")


def add_metrics(app: FastAPI, node: ServerNode | ClientNode) -> None:
    """Add `/metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    app.router.routes.append(Route("/metrics", metrics))


class NodeCollector(Collector):
    """Reads a node.

    Args:
        node: the node.
    """

    def __init__(self, node: ServerNode | ClientNode) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Yield what there is to tell."""
        node = self._node
        yield InfoMetricFamily(
            "restpipe", "This node.", {"version": __version__, "node": node.settings.node, "name": node.identity.name}
        )
        yield from self._counted()
        yield from self._now()
        yield self._certificates()

    def _counted(self) -> Iterator[Metric]:
        meter, totals = self._node.meter, self._node.meter.totals
        durations = HistogramMetricFamily(
            "restpipe_exchange_duration_seconds",
            "Exchanges that this node opened, until the head of the answer, or served, until its end.",
            labels=("side", "verb", "event", "outcome"),
        )
        for labels, measured in (meter.durations or {}).items():
            buckets = list(zip(_LE, accumulate(measured.buckets), strict=True))
            durations.add_metric(labels, buckets, measured.seconds)
        yield durations
        carried = CounterMetricFamily("restpipe_frame_bytes", "Bytes of frames on pipes.", labels=("direction",))
        carried.add_metric(("received",), totals.received)
        carried.add_metric(("sent",), totals.sent)
        yield carried
        yield CounterMetricFamily("restpipe_repeats", "Attempts at a request beyond its first.", meter.repeats)
        yield CounterMetricFamily(
            "restpipe_connections", "Connections that were made; of a client all but the first are reconnects.",
            meter.connections,
        )  # fmt: skip
        yield CounterMetricFamily(
            "restpipe_connect_failures", "Attempts of a client to connect that failed.", meter.failed_connects
        )
        ended = CounterMetricFamily("restpipe_pipes_ended", "Pipes that have ended.", labels=("reason",))
        for number, count in meter.ended.items():
            name = Goaway.Reason.Name(Goaway.Reason.ValueType(number)).lower() if number else "lost"
            ended.add_metric((name,), count)
        yield ended

    def _now(self) -> Iterator[Metric]:
        node, pipes = self._node, self._node.pipes
        yield GaugeMetricFamily("restpipe_ready", "1 while /readyz says so.", float(node.fault is None))
        yield GaugeMetricFamily("restpipe_pipes", "Pipes that take exchanges.", sum(pipe.available for pipe in pipes))
        yield GaugeMetricFamily(
            "restpipe_exchanges_in_flight", "Exchanges under way, both ways.", sum(pipe.in_flight for pipe in pipes)
        )
        yield GaugeMetricFamily(
            "restpipe_queue_depth", "Envelopes and bodies that wait to leave.", sum(pipe.queued for pipe in pipes)
        )
        yield GaugeMetricFamily(
            "restpipe_handler_threads_busy", "Threads that run a handler's method.", node.threads.busy
        )
        trips = [pipe.round_trip for pipe in pipes if pipe.round_trip is not None]
        # Of all pipes together: a label for each would be as many series as there are clients.
        round_trip = GaugeMetricFamily(
            "restpipe_round_trip_seconds", "The last ping, of all pipes.", labels=("of_pipes",)
        )
        if trips:
            round_trip.add_metric(("median",), median(trips))
            round_trip.add_metric(("slowest",), max(trips))
        yield round_trip

    def _certificates(self) -> Metric:
        node, now = self._node, datetime.now(UTC)
        ends = {"node": node.identity.not_after, "ca": node.identity.ca_not_after}
        of_peers = [pipe.peer.not_after for pipe in node.pipes if pipe.peer.not_after is not None]
        if of_peers:
            ends["first_of_peers"] = min(of_peers)
        expiry = GaugeMetricFamily(
            "restpipe_certificate_expires_in_seconds", "Negative once it expired.", labels=("certificate",)
        )
        for certificate, end in ends.items():
            expiry.add_metric((certificate,), (end - now).total_seconds())
        return expiry
