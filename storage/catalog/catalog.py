"""The series of a tenant: a table of one row a series, held in memory, extended by compare-and-set."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import count
from typing import Any, ClassVar

from timedb.contract.errors import Busy, Conflict, InvalidRequest, NotFound
from timedb.contract.identity import canonical_labels, derived_id, series_bucket
from timedb.contract.quantiles import PROBABILITY_COLUMNS
from timedb.contract.times import now
from timedb.contract.wire import CreateSeries, UpdateSeries, quoted
from timedb.storage.catalog.series_files import read_series, series_table
from timedb.storage.delta.log import DataFile, Snapshot
from timedb.storage.delta.parquet import write_file
from timedb.storage.delta.store import Store
from timedb.storage.delta.table import Table
from timedb.storage.measures.units import check_unit
from timedb.storage.tables.commit_marks import UNITS

__all__ = ["DEFAULT_UNIT", "Catalog", "KnownSeries", "LabelFilter", "Series", "SeriesNeeds", "StoredCatalog"]

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
        return dict(_labels_of(self.labels))

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
        own = _labels_of(self.labels)
        return all(
            own.get(key) in wanted if isinstance(wanted, list) else own.get(key) == wanted
            for key, wanted in labels.items()
        )

    @property
    def is_one_of_many(self) -> bool:
        """Whether it is a quantile of a forecast or a member of an ensemble, which no bare name means."""
        return not _labels_of(self.labels).keys().isdisjoint(PROBABILITY_COLUMNS)

    def mentions(self, words: Sequence[str]) -> bool:
        """Whether each of the words, which are in lower case, occurs in what is said of the series."""
        if not words:
            return True
        labels = (f"{key}={value}" for key, value in _labels_of(self.labels).items())
        text = "\n".join((self.name, self.unit, self.description or "", self.series_id, *labels)).casefold()
        return all(word in text for word in words)


@lru_cache(maxsize=1 << 16)  # many series share few texts
def _labels_of(text: str) -> Mapping[str, str]:
    found: dict[str, str] = json.loads(text)
    return found


@dataclass(frozen=True)
class KnownSeries:
    """A catalog at one version of the series table.

    ``file_of`` says in which of its files the row of a series is; that of a tenant's own catalog alone. ``limits``
    tells apart those who see other parts of it.
    """

    snapshot: Snapshot
    by_id: Mapping[str, Series]
    by_name: Mapping[str, Sequence[str]]
    file_of: Mapping[str, str] = field(default_factory=dict)
    limits: str = ""
    _by_labels: dict[str, dict[str, str]] = field(default_factory=dict, repr=False, compare=False)
    _buckets: dict[int | None, Sequence[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def units(self) -> int:
        """The values version of the last change of a unit that they have followed; 0: there was none."""
        return self.snapshot.transactions.get(UNITS, 0)

    @property
    def version(self) -> str:
        """The same only where the same series are seen, under the same names, units and labels."""
        return f"{self.snapshot.version}{self.limits and '.'}{self.limits}"

    def identified(self, name: str, labels: str) -> str | None:
        """The id of the series of a name and canonical labels, retired ones too."""
        named = self.by_name.get(name)
        if not named:
            return None
        ids = self._by_labels.get(name)
        if ids is None:
            ids = self._by_labels[name] = {self.by_id[series_id].labels: series_id for series_id in named}
        return ids.get(labels)

    @cached_property
    def ordered(self) -> Sequence[Series]:
        """All of them by name and labels."""
        return sorted(self.by_id.values(), key=lambda series: (series.name, series.labels, series.series_id))

    def buckets(self, bucket_digits: int | None) -> Sequence[str]:
        """The buckets that series lie in, in order."""
        found = self._buckets.get(bucket_digits)
        if found is None:
            found = sorted({series_bucket(series_id, bucket_digits) for series_id in self.by_id})
            self._buckets[bucket_digits] = found
        return found

    def named(self, name: str, labels: LabelFilter | None = None) -> list[Series]:
        """All series of a name, or those of them that match labels; NotFound: there is none."""
        named = [self.by_id[series_id] for series_id in self.by_name.get(name, ())]
        candidates = [series for series in named if not series.retired and series.matches(labels)]
        if not candidates:
            which = "" if labels is None else f" with labels {quoted(json.dumps(labels))}"
            raise NotFound(f"series_key: there is no series {quoted(name)}{which}")
        return candidates

    def find(self, name: str, labels: LabelFilter | None = None) -> list[Series]:
        """The series that a name stands for: the unlabelled one, else the only one, unless that is a quantile or a
        member; with labels, all that match.

        Raises:
            NotFound: there is none of that name and labels.
            InvalidRequest: a bare name has several candidates, which the error lists.
        """
        candidates = self.named(name, labels)
        bare = [series for series in candidates if series.labels == "{}"]
        if labels is not None or bare:
            return bare if labels is None else candidates
        listed = ", ".join(sorted(series.labels for series in candidates)[:10])
        if all(series.is_one_of_many for series in candidates):
            raise NotFound(
                f"series_key: there is no series {quoted(name)} without labels, and a bare name is none of its "
                f"quantiles or members; add labels: {listed}"
            )
        if len(candidates) > 1:
            raise InvalidRequest(
                f"series_key: {quoted(name)} is the name of {len(candidates)} series; add labels: {listed}"
            )
        return candidates

    def get(self, series_id: str) -> Series:
        """One series.

        Raises:
            NotFound: there is none with that id.
        """
        series = self.by_id.get(series_id)
        if series is None:
            raise NotFound(f"series_id: there is no series {quoted(series_id)}")
        return series

    def label_values(self, name: str | None) -> dict[str, list[str]]:
        """Each label key of the series of a name, or of all, with its values, sorted."""
        values: dict[str, set[str]] = {}
        named = self.by_id if name is None else self.by_name.get(name, ())
        for labels in {self.by_id[one].labels for one in named if not self.by_id[one].retired}:
            for key, value in _labels_of(labels).items():
                values.setdefault(key, set()).add(value)
        return {key: sorted(values[key]) for key in sorted(values)}

    def with_rows(self, snapshot: Snapshot, rows: Mapping[str, Sequence[Series]]) -> KnownSeries:
        """With the rows of further files; by path."""
        by_id, by_name, file_of = dict(self.by_id), dict(self.by_name), dict(self.file_of)
        grown: dict[str, list[str]] = {}
        for path, series in rows.items():
            for one in series:
                old = by_id.get(one.series_id)
                if old is None or old.name != one.name:
                    if one.name not in grown:
                        by_name[one.name] = grown[one.name] = list(by_name.get(one.name, ()))
                    grown[one.name].append(one.series_id)
                if old is not None and old.name != one.name:
                    by_name[old.name] = [each for each in by_name[old.name] if each != one.series_id]
                by_id[one.series_id] = one
                file_of[one.series_id] = path
        return KnownSeries(snapshot, by_id, by_name, file_of)


@dataclass(frozen=True, slots=True)
class SeriesNeeds:
    """What an upload needs of the series: those that it brings, and the units that its values were converted to."""

    new: Sequence[Series]
    units: Mapping[str, str] = field(default_factory=dict)
    """By series_id."""


class Catalog(ABC):
    """The series of a tenant, or those of them that a caller may see. Thread-safe.

    Each look at it asks the log: whoever has several questions takes :meth:`known` once, and asks that.
    """

    limited: ClassVar[bool]
    """Whether the tenant may have series that are not among these."""

    @abstractmethod
    def known(self) -> KnownSeries:
        """The series as of now."""

    @abstractmethod
    def of(self, whole: KnownSeries) -> KnownSeries:
        """Those of all series of the tenant that are among these."""

    @abstractmethod
    def id_for(self, name: str, labels: str, known: KnownSeries) -> str:
        """The id that the series has, or would get in this catalog; labels are canonical JSON text."""

    @abstractmethod
    def check_new(self, name: str, labels: str) -> None:
        """Refuse to make a series; labels as of :meth:`id_for`.

        Raises:
            Forbidden: the caller may not use series of these labels.
        """

    @abstractmethod
    def create(self, messages: Sequence[CreateSeries], *, created_by: str | None) -> list[tuple[str, bool]]:
        """Create series, all or none, or find them: (id, whether it is new) each, in one commit.

        Raises:
            Conflict: one exists with another unit, or is retired.
            Forbidden: the caller may not use series of these labels.
            InvalidRequest: nobody knows the unit of one.
        """

    @abstractmethod
    def follow(self, values: Snapshot) -> None:
        """Take over the changes of units that a version of the values has.

        Raises:
            Busy: it is for others to do.
        """

    @abstractmethod
    def update(self, message: UpdateSeries) -> dict[str, Any]:
        """Change name or description of a series, or retire it; its id, its unit and its values stay.

        Raises:
            NotFound: there is no such series.
            Conflict: another series has the name and these labels.
        """


def _leave_to_others(values: Snapshot) -> None:
    raise Busy("the unit of a series has just changed, and the series table is about to follow; retry")


class StoredCatalog(Catalog):
    """All series of one tenant.

    Args:
        table: The series table.
        tenant_id: The tenant (UUID text).
        follow: Takes over the changes of units that a version of the values has; left out: others do.
    """

    limited = False

    def __init__(self, table: Table, tenant_id: str, follow: Callable[[Snapshot], None] = _leave_to_others) -> None:
        self.table = table
        self._follow = follow
        self._tenant_id = tenant_id
        self._known = _NOTHING
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
            self._known = self._with_files(known, snapshot)
            return self._known

    def of(self, whole: KnownSeries) -> KnownSeries:
        return whole

    def _with_files(self, known: KnownSeries, snapshot: Snapshot) -> KnownSeries:
        kept = known.snapshot.files.keys() <= snapshot.files.keys()
        fresh = snapshot.files.keys() - (known.snapshot.files.keys() if kept else set())
        return (known if kept else _NOTHING).with_rows(snapshot, _read(self.table.store, sorted(fresh)))

    def id_for(self, name: str, labels: str, known: KnownSeries) -> str:
        found = known.identified(name, labels)
        if found is not None:
            return found
        # One that has been renamed keeps the id of its first name.
        derived = (derived_id(self._tenant_id, name, labels, turn) for turn in count())
        return next(series_id for series_id in derived if series_id not in known.by_id)

    def check_new(self, name: str, labels: str) -> None:
        """Nothing: all are his who sees all."""

    def create(self, messages: Sequence[CreateSeries], *, created_by: str | None) -> list[tuple[str, bool]]:
        asked = [(message, canonical_labels(message.labels)) for message in messages]
        for unit in {message.unit for message in messages} - {None}:
            check_unit(str(unit), field="unit")
        ids: list[str] = []
        moment = now()

        def change(known: KnownSeries) -> list[Series]:
            ids[:] = [self.id_for(message.name, labels, known) for message, labels in asked]
            changed: dict[str, Series] = {}
            for series_id, (message, labels) in zip(ids, asked, strict=True):
                old = changed.get(series_id) or known.by_id.get(series_id)
                new = _created(old, series_id, message, labels, moment, created_by)
                if new is not old:
                    changed[series_id] = new
            return list(changed.values())

        new = self._write(change)
        made: list[tuple[str, bool]] = []
        for series_id in ids:
            made.append((series_id, series_id in new))
            new.discard(series_id)  # of one that was asked for twice, the first answer says that it was created
        return made

    def ensure(self, needs: Sequence[SeriesNeeds]) -> list[Busy | None]:
        """Create what uploads need and what does not exist, in one commit.

        Returns:
            For each what is wrong, if anything: a series has been renamed since the upload found out its id, or has
            got another unit. Nothing is created for it then.
        """
        faults: list[Busy | None] = []

        def change(known: KnownSeries) -> list[Series]:
            faults.clear()
            new: dict[str, Series] = {}
            for need in needs:
                fault = self._fault_of(need, known, new)
                faults.append(fault)
                if fault is None:
                    new.update((one.series_id, one) for one in need.new if one.series_id not in known.by_id)
            return list(new.values())

        self._write(change)
        return faults

    def _fault_of(self, need: SeriesNeeds, known: KnownSeries, new: Mapping[str, Series]) -> Busy | None:
        for one in need.new:
            if self.id_for(one.name, one.labels, known) != one.series_id:
                return Busy(f"series_key: a series has just been renamed to or from {quoted(one.name)}; retry")
        for series_id, unit in need.units.items():
            series = known.by_id.get(series_id) or new.get(series_id)
            if series is not None and series.unit != unit:
                return Busy(f"unit: the unit of the series {quoted(series.name)} has just changed; retry")
        return None

    def update(self, message: UpdateSeries) -> dict[str, Any]:
        def change(known: KnownSeries) -> list[Series]:
            old = known.get(message.series_id)
            fields = message.model_fields_set
            new = replace(
                old,
                name=message.name or old.name,
                description=message.description if "description" in fields else old.description,
                retired=bool(message.retired) if "retired" in fields else old.retired,
            )
            holder = known.identified(new.name, new.labels) or old.series_id
            if holder != old.series_id:
                retired = ", which is retired" if known.by_id[holder].retired else ""
                raise Conflict(
                    f"name: {quoted(new.name)} is the name of the series {holder} with the same labels{retired}"
                )
            return [] if new == old else [new]

        self._write(change)
        series = self.known().get(message.series_id)
        return {**series.to_dict(), "retired": series.retired}

    def follow(self, values: Snapshot) -> None:
        self._follow(values)

    def set_units(self, units: Mapping[str, str], reached: int) -> None:
        """Take over changes of units.

        Args:
            units: The new unit of each series.
            reached: The values version of the last of the changes.
        """

        def change(known: KnownSeries) -> list[Series]:
            if known.units >= reached:
                return []
            return [replace(known.get(each), unit=unit, auto_created=False) for each, unit in units.items()]

        self._write(change, {UNITS: reached})

    def _write(self, change: Callable[[KnownSeries], list[Series]], marks: Mapping[str, int] | None = None) -> set[str]:
        """Compare-and-set: what ``change`` makes of the newest catalog is written on top of it. Returns the new ids."""
        with self._writing:
            while True:
                known = self.known()
                changed = change(known)
                if not changed:
                    return set()
                rows, removes = _rewritten(known, changed)
                file = write_file(self.table.store, series_table(rows), {})
                done = self.table.commit_or_delete(known.snapshot, adds=[file], removes=removes, transactions=marks)
                if done is not None:
                    self._take_over(known, done, {file.path: rows})
                    return {series.series_id for series in changed} - known.by_id.keys()

    def _take_over(self, known: KnownSeries, done: Snapshot, rows: Mapping[str, Sequence[Series]]) -> None:
        """What was written need not be read again."""
        with self._refreshing:
            if self._known is known:
                self._known = known.with_rows(done, rows)


def _read(store: Store, paths: Sequence[str]) -> dict[str, list[Series]]:
    return {path: [Series(*row) for row in rows] for path, rows in read_series(store, paths).items()}


_NOTHING = KnownSeries(Snapshot(-1, {}, {}), {}, {})


def _created(
    old: Series | None, series_id: str, message: CreateSeries, labels: str, moment: datetime, created_by: str | None
) -> Series:
    """What an explicit creation makes of a series; the same object where it changes nothing."""
    if old is None:
        unit = message.unit or DEFAULT_UNIT
        return Series(series_id, message.name, labels, unit, message.description, moment, created_by)
    if old.retired:
        raise Conflict(f"name: the series {quoted(message.name)} is retired")
    if old.auto_created:
        described = old.description if message.description is None else message.description
        return replace(old, unit=message.unit or DEFAULT_UNIT, description=described, auto_created=False)
    if message.unit is not None and message.unit != old.unit:
        raise Conflict(f"unit: {quoted(message.unit)}, but the series {quoted(message.name)} has {quoted(old.unit)}")
    return old


def _rewritten(known: KnownSeries, changed: Sequence[Series]) -> tuple[list[Series], list[DataFile]]:
    """The rows of the file to write, and the files whose place it takes.

    Those are the files that hold a row that changes, and, once there are many, the smaller ones: each at most twice as
    long as all before it, so that a row is written anew a few times in its life, however many series there are.
    """
    files = known.snapshot.files
    removes = {known.file_of[one.series_id] for one in changed if one.series_id in known.by_id}
    if len(files) >= _MAX_FILES:
        total = len(changed) + sum(files[path].rows for path in removes)
        for path in sorted(files.keys() - removes, key=lambda path: files[path].rows):
            if files[path].rows > 2 * total:
                break
            removes.add(path)
            total += files[path].rows
    kept = known.file_of.items() if removes else ()
    rows = {series_id: known.by_id[series_id] for series_id, path in kept if path in removes}
    rows.update((one.series_id, one) for one in changed)
    return list(rows.values()), [files[path] for path in removes]
