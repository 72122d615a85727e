"""What Prometheus is told, in a registry of the server's own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from btcai.serving.shelf import Shelf

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("btcai_requests", "Requests answered.", ["endpoint", "status"], registry=self.registry)
        self.request_seconds = Histogram(
            "btcai_request_seconds", "From the request's head to its answer.", ["endpoint"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.decisions = Counter(
            "btcai_decisions", "Decisions made.", ["bucket", "action", "model_version"], registry=self.registry
        )
        self.looks = Counter(
            "btcai_looks", "Market halves of decisions: the encoder ran, or what it had put out was shared.",
            ["bucket", "encoder"], registry=self.registry,
        )  # fmt: skip
        self.bundles = Counter(
            "btcai_bundle_events", "New champions that were swapped in or refused.", ["bucket", "event"],
            registry=self.registry,
        )  # fmt: skip
        self.in_use = Gauge(
            "btcai_bundle_in_use", "1 for the bundle in use.", ["bucket", "model_version", "edge"],
            registry=self.registry,
        )  # fmt: skip
        self.last_close = Gauge(
            "btcai_market_last_close_seconds", "When a market's newest bar closed, since 1970.", ["market"],
            registry=self.registry,
        )  # fmt: skip

    def bundle_event(self, bucket: str, event: str) -> None:
        self.bundles.labels(bucket, event).inc()

    def look(self, bucket: str, encoded: bool) -> None:
        self.looks.labels(bucket, "ran" if encoded else "shared").inc()

    def text(self, shelf: Shelf) -> bytes:
        """The exposition, with the bundles that are in use now."""
        self.in_use.clear()
        for bucket, placed in shelf.in_use().items():
            self.in_use.labels(bucket, placed.bundle.version, placed.edge).set(1)
        return generate_latest(self.registry)
