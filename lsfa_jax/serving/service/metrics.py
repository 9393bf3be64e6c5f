"""What the service counts, in Prometheus's format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_BATCHES = tuple(2**power for power in range(11))


class Metrics:
    """Counters of one service."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """Counts nothing yet.

        Args:
            waiting: returns how many texts wait.
        """
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        labels = ("endpoint", "status")
        self.seconds = Histogram("lsfa_request_seconds", "Time of requests.", labels, registry=registry)
        self.batches = Histogram("lsfa_batch_texts", "Texts of a batch.", buckets=_BATCHES, registry=registry)
        self.reloads = Counter("lsfa_reloads", "Models read again.", ("model", "outcome"), registry=registry)
        Gauge("lsfa_waiting_texts", "Texts that wait.", registry=registry).set_function(waiting)

    def text(self) -> bytes:
        """Returns all values."""
        return generate_latest(self._registry)
