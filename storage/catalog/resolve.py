"""Which series the rows of an upload are about."""

from __future__ import annotations

from dataclasses import dataclass

from timedb.contract.errors import InvalidRequest, NotFound
from timedb.contract.wire import quoted
from timedb.storage.catalog.catalog import Catalog, KnownSeries, Series
from timedb.storage.rows.normalise import Identity

__all__ = ["ResolvedSeries", "find_series", "resolve"]


@dataclass(frozen=True, slots=True)
class ResolvedSeries:
    """A series that an upload names; ``new`` if the upload has to create it.

    A ``retired`` one takes no new run, but the retry of an old run is answered. ``unit`` is None for a new one.
    """

    series_id: str
    name: str
    labels: str
    new: bool
    retired: bool = False
    unit: str | None = None


def resolve(identity: Identity, catalog: Catalog, known: KnownSeries, *, create: bool) -> ResolvedSeries:
    """The series that a row's identity stands for.

    Args:
        identity: An id, or a name with or without labels.
        catalog: The tenant's series.
        known: ``catalog.known()``, taken once for all identities: each look at it asks the log.
        create: Whether a name that nobody has becomes a new series.

    Raises:
        NotFound: there is no such series, and none may be made.
        Forbidden: the caller may not make it.
        InvalidRequest: a bare name has several candidates, or is not that of the id.
    """
    series = find_series(identity, known, create=create)
    if series is None:
        name, labels = identity.name or "", identity.labels or "{}"
        catalog.check_new(name, labels)
        return ResolvedSeries(catalog.id_for(name, labels, known), name, labels, new=True)
    return ResolvedSeries(series.series_id, series.name, series.labels, False, series.retired, series.unit)


def find_series(identity: Identity, known: KnownSeries, *, create: bool) -> Series | None:
    """The series that is there; None where there is none, and one is to be made.

    Raises:
        NotFound, InvalidRequest: as of :func:`resolve`.
    """
    if identity.series_id is not None:
        found = known.get(identity.series_id)
        _refuse_contradiction(identity, found)
        return found
    name = identity.name or ""
    # Not by the id that its name stands for: a series that was renamed keeps that of its first name.
    series_id = known.identified(name, identity.labels or "{}")
    series = None if series_id is None else known.by_id[series_id]
    if series is None and identity.labels is None:
        if create and name not in known.by_name:
            return None  # most often; an error would be made for each of many
        try:
            return known.find(name)[0]
        except NotFound:
            if not create:
                raise
    elif series is None and not create:
        raise NotFound(f"series_key: there is no series {quoted(name)} with labels {quoted(identity.labels)}")
    return series


def _refuse_contradiction(identity: Identity, found: Series) -> None:
    """Refuse a row whose id is that of another series than the name, or the labels, beside it.

    Raises:
        InvalidRequest: names the row and both.
    """
    said, labels = identity.name, identity.labels
    if said in (None, found.name) and labels in (None, found.labels):
        return
    called = f"{quoted(said)}{'' if labels is None else f' with labels {labels}'}"
    raise InvalidRequest(
        f"series_key: row {identity.row} says {called}, but its series_id {quoted(found.series_id)} is that of "
        f"{quoted(found.name)} with labels {found.labels}; leave one of them out"
    )
