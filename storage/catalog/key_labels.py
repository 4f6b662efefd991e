"""A tenant's series as a key sees them that is limited to some labels: for it, no others exist."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from timedb.contract.errors import Forbidden
from timedb.contract.identity import canonical_labels
from timedb.contract.wire import CreateSeries, UpdateSeries, quoted
from timedb.storage.catalog.catalog import Catalog, KnownSeries, Series
from timedb.storage.delta.log import Snapshot
from timedb.storage.users.users import LabelLimits

__all__ = ["LimitedCatalog"]

_HASH_CHARS = 16


class LimitedCatalog(Catalog):
    """Those series of a tenant whose labels fit the limits of a key.

    Args:
        whole: All series of the tenant.
        limits: What their labels must be.
    """

    limited = True

    def __init__(self, whole: Catalog, limits: LabelLimits) -> None:
        self._whole = whole
        self._limits = limits
        said = json.dumps(limits, sort_keys=True).encode()
        self._limits_hash = hashlib.sha256(said).hexdigest()[:_HASH_CHARS]
        self._fits: dict[str, bool] = {}
        self._seen: tuple[KnownSeries, KnownSeries] | None = None

    def known(self) -> KnownSeries:
        """Those of the series as of now that fit."""
        return self.of(self._whole.known())

    def of(self, whole: KnownSeries) -> KnownSeries:
        seen = self._seen
        if seen is not None and seen[0] is whole:
            return seen[1]
        by_id = {series_id: series for series_id, series in whole.by_id.items() if self._may_see(series)}
        by_name: dict[str, list[str]] = {}
        for series in by_id.values():
            by_name.setdefault(series.name, []).append(series.series_id)
        limited = KnownSeries(whole.snapshot, by_id, by_name, limits=self._limits_hash)
        self._seen = whole, limited
        return limited

    def id_for(self, name: str, labels: str, known: KnownSeries) -> str:
        return self._whole.id_for(name, labels, known)

    def check_new(self, name: str, labels: str) -> None:
        wanted = json.loads(labels)
        if not _fit(wanted, self._limits):
            limits = json.dumps(self._limits, sort_keys=True, ensure_ascii=False)
            raise Forbidden(f"labels: the key is limited to series of {limits}; {quoted(name)} has {wanted!a}")

    def create(self, messages: Sequence[CreateSeries], *, created_by: str | None) -> list[tuple[str, bool]]:
        for message in messages:
            self.check_new(message.name, canonical_labels(message.labels))
        return self._whole.create(messages, created_by=created_by)

    def follow(self, values: Snapshot) -> None:
        self._whole.follow(values)

    def update(self, message: UpdateSeries) -> dict[str, Any]:
        self.known().get(message.series_id)
        return self._whole.update(message)

    def _may_see(self, series: Series) -> bool:
        fit = self._fits.get(series.labels)
        if fit is None:
            fit = self._fits[series.labels] = _fit(series.label_map(), self._limits)
        return fit


def _fit(labels: Mapping[str, str], limits: LabelLimits) -> bool:
    return all(
        labels.get(key) in wanted if isinstance(wanted, list) else labels.get(key) == wanted
        for key, wanted in limits.items()
    )
