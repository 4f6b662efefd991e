"""The series of a tenant: a table of one row a series, held in memory, extended by compare-and-set."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa

from storage.delta_log import Snapshot
from storage.parquet import write_file
from storage.schemas import SERIES
from storage.table import Table
from timedb.errors import Conflict, InvalidRequest, NotFound
from timedb.identity import canonical_labels, series_id_for
from timedb.times import now
from timedb.wire import CreateSeries, ListSeries, SeriesLabels, UpdateSeries, shown

__all__ = ["Catalog", "KnownSeries", "LabelFilter", "Series", "StoredCatalog"]

LabelFilter = Mapping[str, str | list[str] | None]
DEFAULT_UNIT = "dimensionless"
_MAX_FILES = 8


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the series table."""

    series_id: str
    name: str
    labels: str
    unit: str
    description: str | None
    created_time: datetime
    created_by: str | None
    auto_created: bool = False
    retired: bool = False

    def label_map(self) -> dict[str, str]:
        """The labels as a dictionary."""
        found: dict[str, str] = json.loads(self.labels)
        return found

    def to_dict(self) -> dict[str, Any]:
        """What the API says of a series."""
        return {
            "series_id": self.series_id,
            "name": self.name,
            "labels": self.label_map(),
            "unit": self.unit,
            "description": self.description,
        }

    def matches(self, labels: LabelFilter | None) -> bool:
        """Whether the labels pass a filter: a text is equality, a list any of its texts, None an absent label.

        The empty filter is the series without labels, as in an upload; no filter (None) are all.
        """
        if not labels:
            return labels is None or self.labels == "{}"
        own = self.label_map()
        return all(
            own.get(key) in wanted if isinstance(wanted, list) else own.get(key) == wanted
            for key, wanted in labels.items()
        )

    def mentions(self, words: Sequence[str]) -> bool:
        """Whether each of the words, which are in lower case, occurs in what is said of the series."""
        if not words:
            return True
        labels = (f"{key}={value}" for key, value in self.label_map().items())
        text = "\n".join((self.name, self.unit, self.description or "", self.series_id, *labels)).casefold()
        return all(word in text for word in words)


@dataclass(frozen=True)
class KnownSeries:
    """A catalog at one version of the series table."""

    snapshot: Snapshot
    by_id: Mapping[str, Series]
    by_name: Mapping[str, Sequence[str]]


class Catalog(ABC):
    """The series of a tenant, or those of them that a caller may see. Thread-safe."""

    limited: ClassVar[bool]
    """Whether the tenant may have series that are not among these."""

    @abstractmethod
    def known(self) -> KnownSeries:
        """The series as of now."""

    @abstractmethod
    def id_for(self, name: str, labels: Mapping[str, str] | None) -> str:
        """The id that the series has or would have."""

    @abstractmethod
    def check_new(self, name: str, labels: Mapping[str, str]) -> None:
        """Refuse to make a series.

        Raises:
            Forbidden: the caller may not use series of these labels.
        """

    @abstractmethod
    def create(self, message: CreateSeries, *, created_by: str | None) -> tuple[str, bool]:
        """Create a series, or find it: (id, whether it is new).

        Raises:
            Conflict: it exists with another unit, or is retired.
            Forbidden: the caller may not use series of these labels.
        """

    @abstractmethod
    def update(self, message: UpdateSeries) -> dict[str, Any]:
        """Change the description of a series, or retire it.

        Raises:
            NotFound: there is no such series.
        """

    def all(self) -> Mapping[str, Series]:
        """Every series by id, retired ones included."""
        return self.known().by_id

    def get(self, series_id: str) -> Series:
        """One series.

        Raises:
            NotFound: there is none with that id.
        """
        series = self.all().get(series_id)
        if series is None:
            raise NotFound(f"series_id: there is no series {shown(series_id)}")
        return series

    def find(self, name: str, labels: LabelFilter | None = None) -> list[Series]:
        """The series that a name stands for: the unlabelled one, else the only one; with labels, all that match.

        Raises:
            NotFound: there is none of that name and labels.
            InvalidRequest: a bare name has several candidates, which the error lists.
        """
        known = self.known()
        candidates = [known.by_id[series_id] for series_id in known.by_name.get(name, ())]
        candidates = [series for series in candidates if not series.retired]
        if labels is not None:
            candidates = [series for series in candidates if series.matches(labels)]
        if not candidates:
            which = "" if labels is None else f" with labels {shown(json.dumps(labels))}"
            raise NotFound(f"series_key: there is no series {shown(name)}{which}")
        if labels is not None or len(candidates) == 1:
            return candidates
        bare = [series for series in candidates if series.labels == "{}"]
        if not bare:
            listed = ", ".join(sorted(series.labels for series in candidates)[:10])
            raise InvalidRequest(
                f"series_key: {shown(name)} is the name of {len(candidates)} series; add labels: {listed}"
            )
        return bare

    def list_series(self, message: ListSeries) -> list[Series]:
        """The series that are not retired, by name and labels."""
        wanted = None if message.series_ids is None else set(message.series_ids)
        words = (message.search or "").casefold().split()
        found = [
            series
            for series in self.all().values()
            if not series.retired
            and (message.name is None or series.name == message.name)
            and (wanted is None or series.series_id in wanted)
            and series.matches(message.labels)
            and series.mentions(words)
        ]
        return sorted(found, key=lambda series: (series.name, series.labels))[: message.limit]

    def label_values(self, message: SeriesLabels) -> dict[str, list[str]]:
        """Each label key with its values, sorted."""
        values: dict[str, set[str]] = {}
        for series in self.list_series(ListSeries(name=message.name)):
            for key, value in series.label_map().items():
                values.setdefault(key, set()).add(value)
        return {key: sorted(values[key]) for key in sorted(values)}


class StoredCatalog(Catalog):
    """All series of one tenant."""

    limited = False

    def __init__(self, table: Table, tenant_id: str) -> None:
        self.table = table
        self._tenant_id = tenant_id
        self._known = KnownSeries(Snapshot(-1, {}, {}), {}, {})
        self._refreshing = threading.Lock()
        self._writing = threading.Lock()

    def known(self) -> KnownSeries:
        """The series as of now, those of other processes included."""
        snapshot = self.table.snapshot()
        if snapshot.version <= self._known.snapshot.version:
            return self._known
        with self._refreshing:
            known = self._known
            if snapshot.version <= known.snapshot.version:
                return known
            # Whoever wrote it may have died before its fsync; values must not outlive their series.
            self.table.log.sync(snapshot.version)
            fresh = snapshot.files.keys() - known.snapshot.files.keys()
            kept = known.snapshot.files.keys() <= snapshot.files.keys()
            by_id = dict(known.by_id) if kept else {}
            by_id.update(self._read(sorted(fresh) if kept else sorted(snapshot.files)))
            by_name: dict[str, list[str]] = {}
            for series in by_id.values():
                by_name.setdefault(series.name, []).append(series.series_id)
            self._known = KnownSeries(snapshot, by_id, by_name)
            return self._known

    def id_for(self, name: str, labels: Mapping[str, str] | None) -> str:
        """See :meth:`Catalog.id_for`."""
        return series_id_for(self._tenant_id, name, labels)

    def check_new(self, name: str, labels: Mapping[str, str]) -> None:
        """Nothing: all are his who sees all."""

    def create(self, message: CreateSeries, *, created_by: str | None) -> tuple[str, bool]:
        """See :meth:`Catalog.create`."""
        labels = canonical_labels(message.labels)
        series_id = self.id_for(message.name, message.labels)
        new = Series(
            series_id, message.name, labels, message.unit or DEFAULT_UNIT, message.description, now(), created_by
        )

        def change(known: KnownSeries) -> list[Series]:
            old = known.by_id.get(series_id)
            if old is None:
                return [new]
            if old.retired:
                raise Conflict(f"name: the series {shown(message.name)} is retired")
            if old.auto_created:
                described = old.description if message.description is None else message.description
                return [replace(old, unit=new.unit, description=described, auto_created=False)]
            if message.unit is not None and message.unit != old.unit:
                raise Conflict(
                    f"unit: {shown(message.unit)}, but the series {shown(message.name)} has {shown(old.unit)}"
                )
            return []

        return series_id, series_id in self._write(change)

    def ensure(
        self, identities: Iterable[tuple[str, str, str | None]], *, created_by: str | None, unit: str | None = None
    ) -> None:
        """Create the series (name, canonical labels, description) that an upload names and that do not exist.

        Without a unit they are ``dimensionless`` until they are created explicitly.
        """
        wanted = [
            Series(
                self.id_for(name, json.loads(labels)),
                name,
                labels,
                unit or DEFAULT_UNIT,
                text,
                now(),
                created_by,
                auto_created=unit is None,
            )
            for name, labels, text in identities
        ]
        self._write(lambda known: [series for series in wanted if series.series_id not in known.by_id])

    def update(self, message: UpdateSeries) -> dict[str, Any]:
        """See :meth:`Catalog.update`."""

        def change(known: KnownSeries) -> list[Series]:
            old = known.by_id.get(message.series_id)
            if old is None:
                raise NotFound(f"series_id: there is no series {shown(message.series_id)}")
            fields = message.model_fields_set
            new = replace(
                old,
                description=message.description if "description" in fields else old.description,
                retired=bool(message.retired) if "retired" in fields else old.retired,
            )
            return [] if new == old else [new]

        self._write(change)
        series = self.get(message.series_id)
        return {**series.to_dict(), "retired": series.retired}

    def _write(self, change: Any) -> set[str]:
        """Compare-and-set: what ``change`` makes of the newest catalog is written on top of it. Returns the new ids."""
        with self._writing:
            while True:
                known = self.known()
                changed: list[Series] = change(known)
                if not changed:
                    return set()
                new = {series.series_id for series in changed} - set(known.by_id)
                # A row that changes is replaced by writing the table anew; so is a table of many small files.
                anew = len(new) < len(changed) or len(known.snapshot.files) >= _MAX_FILES
                rows = list({**known.by_id, **{s.series_id: s for s in changed}}.values()) if anew else changed
                file = write_file(self.table.store, _to_arrow(rows), {})
                removes = list(known.snapshot.files.values()) if anew else []
                if self.table.commit_or_delete(known.snapshot, adds=[file], removes=removes) is not None:
                    return new

    def _read(self, paths: list[str]) -> dict[str, Series]:
        if not paths:
            return {}
        rows = pl.read_parquet([self.table.store.url(path) for path in paths], glob=False, hive_partitioning=False)
        return {row["series_id"]: Series(**row) for row in rows.iter_rows(named=True)}


def _to_arrow(rows: Sequence[Series]) -> pa.Table:
    ordered = sorted(rows, key=lambda series: series.series_id)
    return pa.Table.from_pylist([asdict(series) for series in ordered], schema=SERIES)
