"""FlexMeasures and timely-beliefs in PostgreSQL: beliefs of sources about sensors, each with when it was formed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.quantiles import canonical_quantile
from timedb.contract.wire import quoted
from timedb.imports.origin import IN_ORDER, ImportedRun, ImportedSeries
from timedb.imports.postgres import Database, first_of, literal

__all__ = ["Beliefs"]

_BELIEFS, _SOURCES = ("timed_belief", "timed_beliefs"), ("data_source", "belief_source")
_CERTAIN = ("0.5", "1")
"""The cumulative probabilities of beliefs that are no quantiles."""
_DAILY = ("x_days_ago_at_y_oclock", "x_days_ago_at_y_o_clock")


def _length(name: str) -> str:
    """A parameter that is an ISO 8601 duration, of which PostgreSQL takes none with a minus before it."""
    text = f"(s.knowledge_horizon_par->>'{name}')"
    return f"(CASE WHEN {text} LIKE '-%' THEN -(substr({text}, 2)::interval) ELSE {text}::interval END)"


_ZONE = "(s.knowledge_horizon_par->>'z')"
_DAYS_AGO = (
    f"date_trunc('day', b.event_start AT TIME ZONE {_ZONE}) - (s.knowledge_horizon_par->>'x')::int * interval '1 day'"
)
_KNOWABLE = f"""CASE s.knowledge_horizon_fnc
  WHEN 'ex_post' THEN b.event_start + s.event_resolution + {_length("ex_post_horizon")}
  WHEN 'ex_ante' THEN b.event_start - {_length("ex_ante_horizon")}
  WHEN 'at_date' THEN (s.knowledge_horizon_par->>'knowledge_time')::timestamptz
  ELSE ({_DAYS_AGO} + (s.knowledge_horizon_par->>'y')::float * interval '1 hour') AT TIME ZONE {_ZONE} END"""
_FUNCTIONS = ("ex_post", "ex_ante", "at_date", *_DAILY)


class Beliefs:
    """What such a database holds.

    A series is what one source believes of one sensor, of probabilistic beliefs one quantile of it; a run what a source
    came to believe on one day (UTC); the known_time of each row is the belief time.

    Args:
        database: The database.

    Raises:
        InvalidRequest: it is another database, or a sensor has a knowledge horizon of a kind that is not known.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._columns = database.columns()
        beliefs, sources = first_of(_BELIEFS, self._columns), first_of(_SOURCES, self._columns)
        if beliefs is None or sources is None or "sensor" not in self._columns:
            raise InvalidRequest(
                "URL: the database has no tables of FlexMeasures (timed_belief, sensor, data_source) or timely-beliefs "
                "(timed_beliefs, sensor, belief_source)"
            )
        self._beliefs, self._sources = beliefs, sources
        self.name = "flexmeasures" if beliefs == "timed_belief" else "timely-beliefs"
        known = ", ".join(map(literal, _FUNCTIONS))
        strange = database.query(
            f"SELECT id, knowledge_horizon_fnc AS kind FROM sensor WHERE knowledge_horizon_fnc NOT IN ({known}) LIMIT 1"
        )
        if strange:
            kind = quoted(strange[0]["kind"])
            raise InvalidRequest(
                f"sensor {strange[0]['id']}: its knowledge horizon is of the kind {kind}, not one of {known}"
            )

    def series(self) -> list[ImportedSeries]:
        """What each source believes of each sensor."""
        asset = "generic_asset" in self._columns and "generic_asset_id" in self._columns["sensor"]
        rows = self._database.query(
            f"SELECT k.*, s.name, s.unit, {'a.name' if asset else 'NULL'} AS asset, o.name AS source_name, "
            f"{self._source_column('model')} AS model, {self._source_column('version')} AS version "
            "FROM (SELECT DISTINCT sensor_id AS sensor, source_id AS source, cumulative_probability::text "
            f"AS probability FROM {self._beliefs}) AS k JOIN sensor AS s ON s.id = k.sensor "
            f"JOIN {self._sources} AS o ON o.id = k.source"
            f"{' JOIN generic_asset AS a ON a.id = s.generic_asset_id' if asset else ''} ORDER BY 1, 2, 3"
        )
        among: dict[tuple[int, int], set[str]] = defaultdict(set)
        for row in rows:
            among[row["sensor"], row["source"]].add(row["probability"])
        return [_series(row, quantiles=not among[row["sensor"], row["source"]] <= set(_CERTAIN)) for row in rows]

    def _source_column(self, name: str) -> str:
        return f"o.{name}" if name in self._columns[self._sources] else "NULL"

    def runs(self) -> Iterator[ImportedRun]:
        """What each source came to believe on each day."""
        query = f"SELECT DISTINCT run, run_at, source, source_name FROM ({self._values()}) AS v ORDER BY run_at, run"
        for batch in self._database.stream(query):
            for row in batch.to_pylist():
                params = {"source_id": row["source"]}
                yield ImportedRun(row["run"], row["run_at"], None, row["source_name"], row["run_at"], params=params)

    def rows(self) -> Iterator[pa.RecordBatch]:
        """Every belief: none is corrected there, a new one is another belief."""
        columns = "run, series, valid_time, valid_time_end, known_time, value, NULL AS annotation, NULL::text[] AS tags"
        return self._database.stream(f"SELECT {columns} FROM ({self._values()}) AS v ORDER BY {IN_ORDER}")

    def corrections(self) -> Iterator[pa.RecordBatch]:
        """None: no belief is corrected there."""
        return iter(())

    def _values(self) -> str:
        return f"""
SELECT known.source_id || ':' || to_char(known.known_time AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS run,
  date_trunc('day', known.known_time) AS run_at, o.id AS source, o.name AS source_name, known.*
FROM (
  SELECT b.sensor_id || ':' || b.source_id || ':' || b.cumulative_probability::text AS series, b.source_id,
    b.event_start AS valid_time, b.event_value AS value, {_KNOWABLE} - b.belief_horizon AS known_time,
    CASE WHEN s.event_resolution > interval '0' THEN b.event_start + s.event_resolution END AS valid_time_end
  FROM {self._beliefs} AS b JOIN sensor AS s ON s.id = b.sensor_id) AS known
JOIN {self._sources} AS o ON o.id = known.source_id"""


def _series(row: dict[str, Any], *, quantiles: bool) -> ImportedSeries:
    labels = {"sensor": str(row["sensor"]), "source": row["source_name"], "source_id": str(row["source"])}
    labels |= {name: row[name] for name in ("asset", "model", "version") if row[name]}
    if quantiles:
        try:
            labels["quantile"] = canonical_quantile(row["probability"])
        except ValueError as error:
            where = f"sensor {row['sensor']}, source {row['source']}"
            raise InvalidRequest(f"{where}: the cumulative probability {row['probability']} {error}") from None
    key = f"{row['sensor']}:{row['source']}:{row['probability']}"
    return ImportedSeries(key, row["name"], labels, row["unit"] or None)
