"""Figures for Prometheus: of the calls of this server, and of the lake as far as it is served; see docs/metrics.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from timedb.contract.errors import InvalidRequest, TimeDBError
from timedb.flight_server.call.context import CallContext
from timedb.flight_server.call.slots import Gate, Slots

if TYPE_CHECKING:
    from timedb.storage import Lake, MemoryOfServer, Tenant

__all__ = ["Metrics"]

_CALL = ("tenant", "method")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_NOBODY = "-"

_log = logging.getLogger("timedb.flight")


class Metrics:
    """The figures of one server: a registry of its own, so that several servers fit in one process. Thread-safe.

    Args:
        lake: What is served.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._tenants: set[str] = set()
        self._registry = CollectorRegistry()
        self._calls = self._metric(Counter, "calls", "Calls that have ended", (*_CALL, "code"))
        self._rows = self._metric(Counter, "rows", "Rows that came with uploads and lookups, or went with reads", _CALL)
        self._bytes = self._metric(Counter, "bytes", "Their bytes, as Arrow has them in memory", _CALL)
        self._running = self._metric(Gauge, "calls_running", "Calls that have begun and not ended")
        self._taken = self._metric(Gauge, "slots_taken", "Slots that are taken, of those for calls at once", ["kind"])
        self._waiting = self._metric(Gauge, "slots_waiting", "Calls that wait for a slot", ["kind"])
        self._seconds = Histogram(
            "timedb_flight_call_seconds",
            "Seconds that calls took, streams included",
            _CALL,
            buckets=_SECONDS,
            registry=self._registry,
        )

    def _metric(self, kind: Callable[..., Any], name: str, text: str, labels: Iterable[str] = ()) -> Any:
        return kind(f"timedb_flight_{name}", text, labels, registry=self._registry)

    def watch(self, gate: Gate, kinds: Iterable[Slots]) -> None:
        """Have the gauges follow what limits the calls."""
        self._running.set_function(lambda: gate.inside)
        for slots in kinds:
            self._taken.labels(slots.what).set_function(lambda slots=slots: slots.taken)
            self._waiting.labels(slots.what).set_function(lambda slots=slots: slots.waiting)

    def record(self, call: CallContext) -> None:
        """Count a call that has ended. Its method names an action only if there is one, so that labels stay few."""
        tenant = _NOBODY if call.caller is None else call.caller.tenant_id
        self._calls.labels(tenant, call.method, call.code).inc()
        self._seconds.labels(tenant, call.method).observe(call.seconds)
        if call.rows:
            self._rows.labels(tenant, call.method).inc(call.rows)
            self._bytes.labels(tenant, call.method).inc(call.bytes)
        if call.caller is not None:
            self._tenants.add(tenant)

    def text(self, tenant_id: str | None = None) -> str:
        """All figures in the Prometheus text format.

        Args:
            tenant_id: Only what is about that tenant; None: everything.
        """
        return generate_latest(_Figures(self, tenant_id)).decode()

    def serve(self, host: str, port: int) -> tuple[str, Callable[[], None]]:
        """Answer ``GET /metrics`` with everything.

        Returns:
            The address, and what ends it.

        Raises:
            InvalidRequest: nothing can listen there.
        """
        try:
            server, thread = start_http_server(port, host, _Figures(self, None))
        except OSError as error:
            raise InvalidRequest(
                f"TIMEDB_METRICS_HOST, TIMEDB_METRICS_PORT: cannot listen on {host} port {port}: "
                f"{error.strerror or error}"
            ) from None
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{server.server_port}/metrics"
        _log.info("figures for Prometheus at %s", url)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return url, stop

    def families(self, tenant_id: str | None) -> Iterator[Metric]:
        """The metrics, those of the lake last."""
        for family in self._registry.collect():
            if tenant_id is not None:
                family.samples = [one for one in family.samples if one.labels.get("tenant") == tenant_id]
            if family.samples:
                yield family
        if tenant_id is None:
            yield from _of_memory(self._lake.memory)
        yield from _of_lake(self._lake, sorted(self._tenants) if tenant_id is None else [tenant_id])


class _Figures:
    """What the text is made of, in the form of a registry."""

    def __init__(self, metrics: Metrics, tenant_id: str | None) -> None:
        self._metrics = metrics
        self._tenant_id = tenant_id

    def collect(self) -> Iterator[Metric]:
        return self._metrics.families(self._tenant_id)


_DISK_KINDS = ("live", "replaced", "log", "checkpoint")


def _of_memory(memory: MemoryOfServer) -> Iterator[Metric]:
    calls = memory.calls
    for name, text, figure in (
        ("limit_bytes", "Bytes that the process may take, about", memory.limit),
        ("for_calls_bytes", "Bytes of them that there are for calls", calls.for_calls),
        ("taken_bytes", "Bytes that calls have been given", calls.taken),
        ("resident_bytes", "Bytes that the process has really taken, its files not counted", calls.resident),
        ("cache_bytes", "Bytes that are kept for the next time, about", memory.cache.held),
        ("waiting", "Calls that wait for memory", calls.waiting),
    ):
        yield GaugeMetricFamily(f"timedb_memory_{name}", text, figure)
    refused = CounterMetricFamily("timedb_memory_refused", "Calls that got no memory", labels=("code",))
    for code, count in sorted(calls.refused.items()):
        refused.add_metric((code,), count)
    yield refused


def _of_lake(lake: Lake, tenant_ids: Iterable[str]) -> Iterator[Metric]:
    of_tier = {
        name: GaugeMetricFamily(f"timedb_lake_{name}", f"{text} of the values table by tier", labels=("tenant", "tier"))
        for name, text in (("files", "Files"), ("rows", "Rows"), ("bytes", "Bytes"))
    }
    of_table = {
        name: GaugeMetricFamily(f"timedb_lake_{name}", text, labels=("tenant",))
        for name, text in (
            ("series", "Series that are not retired"),
            ("compaction_debt_files", "Files that no compaction has looked at"),
            ("compaction_debt_rows", "Rows that no compaction has looked at"),
            ("mixed_files", "Files of small writes that are not in their buckets yet"),
            ("unwritten_records", "Records of runs and updates that are in the values log alone"),
            ("commits_since_checkpoint", "Commits of the values table since its last checkpoint"),
            ("change_time_ahead_seconds", "Seconds that the last change_time lies ahead of this server's clock"),
            ("clock_distrusted", "1 where the clock is so far wrong that no write is stamped"),
            ("clock_doubtful", "1 where the server was started long after the last write to the lake, by its clock"),
            ("queued_writes", "Writes that wait for their commit in this process"),
            ("oldest_write_seconds", "Seconds that the first of the writes not yet committed has waited"),
        )
    }
    disk = GaugeMetricFamily("timedb_lake_disk_bytes", "Bytes of all tables on the disk", labels=("tenant", "kind"))
    commits = CounterMetricFamily("timedb_lake_commits", "Commits of the values table", labels=("tenant",))
    for tenant_id in tenant_ids:
        tenant = lake.tenant(tenant_id)
        try:
            status = tenant.status()
        except TimeDBError as error:
            _log.warning("no figures of tenant=%s: %s", tenant_id, error)
            continue
        for tier, figures in status["tiers"].items():
            for name, family in of_tier.items():
                family.add_metric((tenant_id, tier), figures[name])
        for name, figure in _of_tenant(tenant, status).items():
            of_table[name].add_metric((tenant_id,), figure)
        for kind in _DISK_KINDS:
            disk.add_metric((tenant_id, kind), status["disk"][f"{kind}_bytes"])
        commits.add_metric((tenant_id,), status["table_version"])
    yield from (*of_tier.values(), *of_table.values(), disk, commits)


def _of_tenant(tenant: Tenant, status: dict[str, Any]) -> dict[str, float]:
    return {
        "series": status["series"],
        "compaction_debt_files": status["tiers"]["fresh"]["files"],
        "compaction_debt_rows": status["tiers"]["fresh"]["rows"],
        "mixed_files": status["debts"]["mixed_files"],
        "unwritten_records": status["debts"]["unwritten_records"],
        "commits_since_checkpoint": status["commits_since_checkpoint"],
        "change_time_ahead_seconds": status["change_time_ahead_seconds"],
        "clock_distrusted": float(status["clock_fault"] is not None),
        "clock_doubtful": float(status["clock_warning"] is not None),
        "queued_writes": status["queued_writes"],
        "oldest_write_seconds": tenant.lane.oldest_seconds,
    }
