"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Counters of one server, in a registry of their own.

    Args:
        waiting: how many answers wait now.
        running: how many are being decoded now.
    """

    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "pad_requests", "Requests answered, refused or lost.", ("route", "status"), registry=self._registry
        )
        self.cancelled = Counter("pad_cancelled", "Requests whose client left.", registry=self._registry)
        self.prompt_tokens = Counter("pad_prompt_tokens", "Tokens of prompts accepted.", registry=self._registry)
        self.new_tokens = Counter("pad_new_tokens", "Tokens decoded.", registry=self._registry)
        self.seconds = Histogram(
            "pad_request_seconds",
            "From the whole request to the whole answer.",
            registry=self._registry,
            buckets=_SECONDS,
        )
        self.wait_seconds = Histogram(
            "pad_wait_seconds", "From the whole request to its batch.", registry=self._registry, buckets=_SECONDS
        )
        self.batch_rows = Histogram(
            "pad_batch_rows", "Answers decoded together.", registry=self._registry, buckets=_ROWS
        )
        Gauge("pad_waiting", "Answers that wait.", registry=self._registry).set_function(waiting)
        Gauge("pad_running", "Answers being decoded.", registry=self._registry).set_function(running)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
