"""What a file would be: its first rows as they would be stored, what was left out, what was guessed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from timedb.contract.times import format_time
from timedb.layouts.layout import Layout
from timedb.layouts.prepared import Prepared

__all__ = ["preview_of", "summary_of"]

_SHOWN_ROWS = 10
_LOOKED_AT = 5000
_SHOWN_SERIES = 20


def preview_of(prepared: Prepared, layout: Layout, unit: str | None, rows: int = _SHOWN_ROWS) -> dict[str, Any]:
    """The first rows and what is known of the whole.

    Args:
        prepared: The run.
        layout: Its options; local times are of its zone.
        unit: Of all values; None: that of their series.
        rows: How many are shown.

    Returns:
        ``rows``: ``series``, ``labels``, ``valid_time``, ``valid_time_local``, ``valid_time_end``, ``known_time``,
        ``known_time_local``, ``value``, ``unit`` of each; and the fields of :func:`summary_of`.
    """
    read = (each for batch in prepared.reader() for each in batch.slice(0, _LOOKED_AT).to_pylist())
    first = sorted(islice(read, _LOOKED_AT), key=_as_stored)[:rows]
    return {"first_rows": [_row(each, prepared, layout, unit) for each in first], **summary_of(prepared, layout)}


def _as_stored(row: Mapping[str, Any]) -> tuple[str, str, datetime]:
    name = row.get("series_key") or row.get("series_id") or ""
    return str(name), row.get("labels") or "", row["valid_time"] or datetime.min.replace(tzinfo=UTC)


def summary_of(prepared: Prepared, layout: Layout) -> dict[str, Any]:
    """How much there is, from when to when, what was left out and what was guessed."""
    names = sorted(f"{name} {labels}".strip() for name, labels in islice(prepared.series, 10 * _SHOWN_SERIES))
    known = prepared.known.texts() or ([prepared.known_at] * 2 if prepared.known_at else None)
    chosen = prepared.chosen
    left_out = [*layout.get("ignore"), *chosen.left_out, *chosen.overruled]
    return {
        "rows": prepared.rows,
        "dropped": prepared.dropped,
        "series": len(prepared.series),
        "series_names": names[:_SHOWN_SERIES],
        "valid_time": prepared.valid.texts(),
        "known_time": known or "now: nothing says when the values became known",
        "left_out": left_out,
        "found_out": dict(prepared.found_out),
    }


def _row(row: Mapping[str, Any], prepared: Prepared, layout: Layout, unit: str | None) -> dict[str, Any]:
    zone = layout.said.get("time_zone")
    local = ZoneInfo(zone) if zone is not None else None
    known = row.get("known_time")
    shown: dict[str, Any] = {"series": row.get("series_key") or row.get("series_id"), "labels": row.get("labels") or ""}
    shown["valid_time"] = _text(row["valid_time"])
    if local is not None:
        shown["valid_time_local"] = _local(row["valid_time"], local)
    if "valid_time_end" in row:
        shown["valid_time_end"] = _text(row["valid_time_end"])
    shown["known_time"] = _text(known) if known is not None else prepared.known_at or "now"
    if local is not None:
        shown["known_time_local"] = _local(known, local) if known is not None else ""
    value = row["value"]
    shown["value"] = value if value is None or value == value else "NaN"
    shown["unit"] = unit or ""
    return shown | {name: row[name] for name in ("annotation", "tags") if name in row}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _local(moment: datetime | None, zone: ZoneInfo) -> str | None:
    return None if moment is None else moment.astimezone(zone).isoformat(" ")
