"""Figures of one gateway for Prometheus: calls and latencies by method, route and status."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["METRICS_TYPE", "Metrics"]

METRICS_TYPE = CONTENT_TYPE_LATEST
_LABELS = ("method", "route", "status")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The counters of one app: a registry of its own, so that several apps fit in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter("timedb_rest_calls", "Calls answered", _LABELS, registry=self._registry)
        self._seconds = Histogram(
            "timedb_rest_call_seconds",
            "Seconds from the request's head to the last byte of the answer",
            _LABELS,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.running = Gauge("timedb_rest_calls_running", "Calls not yet answered", registry=self._registry)

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered call; ``route`` is the template, never the path, so that the label stays small."""
        self._calls.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All figures in the Prometheus text format."""
        return generate_latest(self._registry)
