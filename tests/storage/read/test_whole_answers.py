"""Answers put together before their first row goes out: beforehand or not the same, and given up on request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.lakes import Sent, hour, some_rows, upload
from timedb.contract.columns import META_CURSOR
from timedb.contract.errors import Timeout, TooLarge
from timedb.contract.wire import ReadTicket, parse_object
from timedb.storage import Memory, Tenant
from timedb.storage.read.answers import Answers
from timedb.storage.read.buckets import BucketRead

WHOLE = [{"ordered": True, "order_by": "valid_time"}, {"limit": 9}, {"limit": 7, "order_by": "valid_time"}]
STREAMED = [{}, {"ordered": True}]


def read(tenant: Tenant, fields: dict[str, object]) -> ReadTicket:
    """A read of everything, after an upload of a few series in two buckets."""
    upload(tenant, some_rows(12))
    return parse_object(ReadTicket, {"view": "overlapping", **fields})


@pytest.mark.parametrize("fields", WHOLE + STREAMED)
def test_what_is_put_together_beforehand_is_the_same_answer(tenant: Tenant, fields: dict[str, object]) -> None:
    ticket = read(tenant, fields)
    asked: list[int] = []
    plan = tenant.plan_read(ticket)
    plan.materialise(lambda: asked.append(1))
    assert len(asked) == (2 if fields in WHOLE else 0)
    found: pa.Table = plan.reader().read_all()
    assert found.num_rows == fields.get("limit", 12)
    assert found == tenant.plan_read(ticket).reader().read_all()
    assert len(asked) <= 2


@pytest.mark.parametrize("limit", [5, 7, 12, 13])
def test_the_schema_and_the_parts_of_a_page_need_no_row_of_it(
    tenant: Tenant, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """get_flight_info and get_schema ask a plan for both; the page is computed once, for the stream."""
    ticket = read(tenant, {"limit": limit})
    looked_at: list[str] = []
    original = Answers.tables

    def watched(answers: Answers, bucket: BucketRead) -> Iterator[pa.Table]:
        looked_at.append(bucket.bucket)
        return original(answers, bucket)

    monkeypatch.setattr(Answers, "tables", watched)
    plan = tenant.plan_read(ticket)
    (part,) = plan.parts
    assert META_CURSOR not in plan.schema.metadata
    assert not looked_at
    plan.materialise(lambda: None)
    reader = plan.reader()
    assert reader.read_all().num_rows == part.rows == min(limit, 12)
    assert len(looked_at) == len(set(looked_at)), "each bucket once"
    assert len(looked_at) == (1 if limit < 8 else 2), "none whose series come after the page"
    assert reader.schema.equals(plan.schema)
    assert (META_CURSOR in reader.schema.metadata) == (limit < 12)
    assert plan._whole is None, "nothing is held for a second stream"


@pytest.mark.parametrize("fields", WHOLE)
def test_it_is_given_up_before_the_next_bucket(tenant: Tenant, fields: dict[str, object]) -> None:
    left = [True, False]

    def check_cancelled() -> None:
        if not left.pop(0):
            raise Timeout("the client gave up")

    plan = tenant.plan_read(read(tenant, fields))
    with pytest.raises(Timeout, match="the client gave up"):
        plan.materialise(check_cancelled)
    assert not left


HELD_WHOLE: dict[str, dict[str, Any]] = {
    "latest": {"view": "latest"},
    "periods": {"view": "flat", "resample": {"period": "P1D", "aggregate": "mean", "time_zone": "UTC"}},
    "order across series": {"view": "overlapping", "ordered": True, "order_by": "valid_time"},
}


@pytest.mark.parametrize("what", HELD_WHOLE)
def test_one_long_series_that_is_not_settled_is_held_whole_or_refused(tenant: Tenant, what: str) -> None:
    rows = 400  # twenty times what is worked on at once
    sent = [Sent("long", hour(number), None, None, float(number)) for number in range(rows // 2)]
    for run in ("first", "second"):
        upload(tenant, sent, run)
    ticket = parse_object(ReadTicket, {"series_keys": ["long"], **HELD_WHOLE[what]})
    asked: list[int] = []
    plan = tenant.plan_read(ticket)
    plan.hold(asked.append)
    plan.materialise(lambda: None)
    found = plan.reader().read_all().num_rows
    assert sum(asked) > rows * 16, "it asks for the memory of all its rows"
    memory = Memory(rows * 8, 0.0, measure=lambda: 0)

    def answered() -> int:
        plan = tenant.plan_read(ticket)
        with memory.share("ticket", 0) as share:
            plan.hold(share.grow)
            plan.materialise(lambda: None)
            return int(plan.reader().read_all().num_rows)

    with pytest.raises(TooLarge, match=r"TIMEDB_MEMORY_LIMIT_MB.* ask for less"):
        answered()
    assert found == {"latest": 1, "periods": 9, "order across series": rows}[what]
    # Piece by piece it needs no such room.
    streamed = tenant.plan_read(parse_object(ReadTicket, {"series_keys": ["long"], "ordered": True}))
    asked.clear()
    streamed.hold(asked.append)
    assert streamed.reader().read_all().num_rows == rows // 2
    assert sum(asked) < rows * 16
