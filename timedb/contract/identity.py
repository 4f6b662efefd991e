"""How series and revisions are named: derived ids, so that two servers agree without asking each other."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID, uuid5

from timedb.contract.times import from_micros, to_micros

__all__ = ["OPEN_TENANT_ID", "RevisionKey", "canonical_labels", "derived_id", "series_bucket", "series_id_for"]

OPEN_TENANT_ID = "00000000-0000-0000-0000-000000000000"
"""The tenant of everybody while the lake has no users."""


def canonical_labels(labels: Mapping[str, str] | None) -> str:
    """Labels as canonical JSON text: keys sorted, no spaces, ``{}`` for none."""
    if not labels:
        return "{}"
    return json.dumps(dict(labels), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def series_id_for(tenant_id: str, name: str, labels: Mapping[str, str] | None, turn: int = 0) -> str:
    """The id that a new series (tenant, name, labels) gets: a UUIDv5 (RFC 9562 section 5.5) in the tenant's namespace.

    A series that is renamed keeps its id. Whoever takes its old name then gets the id of the next ``turn``.
    """
    return derived_id(tenant_id, name, canonical_labels(labels), turn)


@lru_cache(maxsize=1 << 18)  # run after run names the same series
def derived_id(tenant_id: str, name: str, labels: str, turn: int = 0) -> str:
    """As :func:`series_id_for`, of labels as canonical JSON text."""
    identity = json.dumps([name, labels, turn] if turn else [name, labels], ensure_ascii=False, separators=(",", ":"))
    return str(uuid5(UUID(tenant_id), identity))


def series_bucket(series_id: str, bucket_digits: int | None = 1) -> str:
    """The partition of a series: the first hex digits of its id, or all of the id where ``bucket_digits`` is None."""
    return series_id if bucket_digits is None else series_id[:bucket_digits]


@dataclass(frozen=True, slots=True)
class RevisionKey:
    """What one revision of one value is: (series, valid time, interval end, known time, run).

    Its text form is the ``value_id`` of the API: base64url of the five parts, each time as integer
    microseconds since 1970, joined by ``~``; the end is empty where there is none.
    """

    series_id: str
    valid_time: datetime
    valid_time_end: datetime | None
    known_time: datetime
    run_id: str

    def to_value_id(self) -> str:
        """The opaque text of this key."""
        end = "" if self.valid_time_end is None else str(to_micros(self.valid_time_end))
        parts = (self.series_id, str(to_micros(self.valid_time)), end, str(to_micros(self.known_time)), self.run_id)
        return base64.urlsafe_b64encode("~".join(parts).encode()).decode().rstrip("=")

    @classmethod
    def from_value_id(cls, value_id: str) -> RevisionKey:
        """Read a ``value_id`` back.

        Raises:
            ValueError: the text is not a value_id.
        """
        try:
            padded = value_id.encode("ascii") + b"=" * (-len(value_id) % 4)
            text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
            series_id, valid, end, known, run_id = text.split("~", 4)
            return cls(
                str(UUID(series_id)),
                from_micros(int(valid)),
                from_micros(int(end)) if end else None,
                from_micros(int(known)),
                run_id,
            )
        except (ValueError, OverflowError, binascii.Error, UnicodeError):
            raise ValueError("is not a value_id") from None
