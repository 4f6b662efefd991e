"""The body of ``GET /values`` in each format it is offered in.

- ``application/json``: ``{"data": [row, …], "count": n, "next_cursor": …}``, the cursor only if there is a next page
- ``application/x-ndjson``: a row a line
- ``text/csv``: a line of names, then a row a line
- ``application/vnd.apache.arrow.stream``: an Arrow IPC stream, whose schema metadata has the ``cursor``
- ``application/vnd.apache.parquet``: a Parquet file, compressed, whose metadata has the ``cursor``, too

A failure after the head of the answer has gone out cuts the connection, so that no client takes the part for the
whole. Nothing but rows stands in NDJSON and CSV: readers take every line for a row.
"""

from __future__ import annotations

from dataclasses import replace

import orjson
import pyarrow as pa

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.files.formats import FORMATS, BodyFormat, FormatName, JsonBody, Style, write_body
from timedb.files.row_text import CSV, CSV_FOR_SPREADSHEETS, JSON, JSON_NON_FINITE_TEXT, NDJSON, NDJSON_NON_FINITE_TEXT
from timedb.rest_gateway.answer.preferences import weighted

__all__ = ["EVENTS", "changes_json", "choose_format", "prefers_events", "style_of"]

EVENTS = "text/event-stream"


def style_of(cursor: str | None, *, non_finite_text: bool, without_formulas: bool = False) -> Style:
    """How an answer is written.

    Args:
        cursor: Where the next page starts; none: there is no next page.
        non_finite_text: Whether JSON writes NaN and the infinities as texts rather than as null.
        without_formulas: Whether CSV is for spreadsheets, which would work out texts that begin like formulas.
    """

    def end(count: int) -> bytes:
        return b"]," + orjson.dumps({"count": count} | ({"next_cursor": cursor} if cursor else {}))[1:]

    json, ndjson = (JSON_NON_FINITE_TEXT, NDJSON_NON_FINITE_TEXT) if non_finite_text else (JSON, NDJSON)
    csv = CSV_FOR_SPREADSHEETS if without_formulas else CSV
    return Style(json, ndjson, csv, b'{"data":[', end)


def changes_json(batch: pa.RecordBatch, token: str, *, non_finite_text: bool) -> bytes:
    """The answer of ``GET /changes``: rows, how many, and the token of what follows them."""

    def end(count: int) -> bytes:
        return b"]," + orjson.dumps({"count": count, "token": token})[1:]

    style = replace(style_of(None, non_finite_text=non_finite_text), json_end=end)
    return b"".join(write_body(JsonBody(batch.schema, style), [batch]))


def prefers_events(accept: str) -> bool:
    """Whether an ``Accept`` header asks for a stream of events rather than for JSON.

    Raises:
        InvalidRequest: it allows neither.
    """
    ranges = _ranges(accept)
    events, json = ranges.get(EVENTS, 0.0), _quality("application/json", ranges)
    if max(events, json) <= 0:
        raise InvalidRequest(f"Accept: {quoted(accept)} allows neither application/json nor {EVENTS}")
    return events > 0 and events >= json


def choose_format(accept: str, name: FormatName | None = None) -> type[BodyFormat]:
    """The format of that name, else the one that an ``Accept`` header prefers (RFC 9110 section 12.5.1), else JSON.

    Raises:
        InvalidRequest: the header allows none of the formats.
    """
    if name is not None:
        return next(offered for offered in FORMATS if offered.name == name)
    ranges = _ranges(accept)
    best: tuple[float, type[BodyFormat]] | None = None
    for offered in FORMATS:
        quality = max(_quality(media_type, ranges) for media_type in offered.media_types)
        if quality > 0 and (best is None or quality > best[0]):
            best = quality, offered
    if best is None:
        offers = ", ".join(offered.media_types[0] for offered in FORMATS)
        raise InvalidRequest(f"Accept: {quoted(accept)} allows none of {offers}")
    return best[1]


def _ranges(accept: str) -> dict[str, float]:
    return weighted(accept) or {"*/*": 1.0}


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """The quality that the most exact matching range gives; 0 if none matches."""
    main = media_type.partition("/")[0]
    return next((ranges[name] for name in (media_type, f"{main}/*", "*/*") if name in ranges), 0.0)
