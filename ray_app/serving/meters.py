"""What a replica counts, in Prometheus' text format. Nothing of a person is in it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCIES_S = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Meters:
    """Counters of one replica; an application has its own, so that several fit into one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._latency = Histogram(
            "retail_request_seconds", "Time to answer", labels, buckets=LATENCIES_S, registry=self._registry
        )
        self.batch = Histogram(
            "retail_batch_requests", "Requests answered by one pass", buckets=BATCHES, registry=self._registry
        )
        self.waiting = Gauge("retail_waiting_requests", "Requests that wait for the model", registry=self._registry)
        self.events = Counter("retail_events", "Events that were kept", registry=self._registry)
        self.loads = Counter(
            "retail_version_loads", "Versions loaded or refused", ("outcome",), registry=self._registry
        )
        version = ("version",)
        self.failures = Counter(
            "retail_version_failures", "Answers that another version had to give", version, registry=self._registry
        )
        self.overlap = Histogram(
            "retail_shadow_overlap",
            "Overlap@k of a shadow's list and the one given",
            version,
            buckets=OVERLAPS,
            registry=self._registry,
        )
        self.rollbacks = Counter("retail_rollbacks", "Moves undone by this replica", registry=self._registry)
        self._version = Gauge("retail_version", "The version that answers", version, registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request is done."""
        self._latency.labels(method, route, status).observe(seconds)

    def answers_with(self, version: str) -> None:
        """Another version answers now."""
        self._version.clear()
        self._version.labels(version).set(1)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
