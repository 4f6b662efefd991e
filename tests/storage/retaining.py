"""Retention rules in tests: short to write, applied as of a fixed moment, and what all readers must say after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.storage.lakes import DAY, Sent, Stored, hour, read, scan_delta, upload
from tests.storage.model import Model
from timedb.contract.times import from_micros
from timedb.contract.wire import RetentionRule, UpdateValues, ValueUpdate, parse_object
from timedb.storage import Tenant
from timedb.storage.maintain.compaction import Compactor
from timedb.storage.maintain.retention import Retention

ZONE = "Europe/Stockholm"
MOMENT = DAY + timedelta(days=100)
"""What ages are counted back from: the history lies on days 80 to 96, around the change to summer time."""


def rule(**fields: Any) -> RetentionRule:
    """A rule; for all series where it does not say for which."""
    return parse_object(RetentionRule, fields if "name" in fields else {"labels": {}, **fields})


def day(number: float) -> int:
    """Microseconds of a day of 2025."""
    return hour(0) + round(number * 86_400_000_000)


def retention(tenant: Tenant, compactor: Compactor | None = None, *, file_rows: int = 24) -> Retention:
    """The retention of a tenant."""
    digits = tenant.bucket_digits
    compactor = compactor or Compactor(
        tenant.values, tenant.lane, bucket_digits=digits, file_rows=file_rows, input_rows=30
    )
    return Retention(
        tenant.values,
        tenant.lane,
        compactor,
        tenant.catalog,
        bucket_digits=digits,
        file_rows=file_rows,
    )


def apply(tenant: Tenant, *rules: RetentionRule, dry_run: bool = False) -> dict[str, Any]:
    """Apply rules as of :data:`MOMENT`."""
    return retention(tenant).apply(rules, moment=MOMENT, dry_run=dry_run)


def forecasts(
    tenant: Tenant, *, series: str = "a", revisions: int = 6, valid: float = 85, first: float = 80, tag: str = ""
) -> None:
    """One value, forecast anew each day."""
    for number in range(revisions):
        upload(tenant, [Sent(series, day(valid), None, day(first + number), float(number))], f"{series}-{number}{tag}")


def correct(tenant: Tenant, row: Stored, **changes: Any) -> None:
    """A new version of a row."""
    item = {
        "series_id": tenant.catalog.known().find(row.series)[0].series_id,
        "run_id": row.run_id,
        "valid_time": from_micros(row.valid_time),
        "valid_time_end": None if row.valid_time_end is None else from_micros(row.valid_time_end),
        "known_time": from_micros(row.known_time),
        **changes,
    }
    tenant.update_values(UpdateValues(updates=[parse_object(ValueUpdate, item)]), changed_by=None)


def assert_readers_agree(tenant: Tenant, folder: Path, expected: Sequence[Stored]) -> None:
    """The views of a tenant, which use tiers, and a direct reader, which does not, say what the model says."""
    model = Model()
    model.rows = list(expected)
    assert Counter(read(tenant)) == Counter(expected)
    assert Counter(scan_delta(folder)) == Counter(expected)
    for view in ("flat", "overlapping"):
        assert Counter(read(tenant, view, all_versions=False)) == Counter(model.answer(view))
    chains = Counter(read(tenant, "flat", all_versions=True))
    assert chains == Counter(model.answer("flat", all_versions=True))
