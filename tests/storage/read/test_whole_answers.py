"""Answers put together before their first row goes out: beforehand or not the same, and given up on request."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tests.storage.lakes import some_rows, upload
from timedb.contract.errors import Timeout
from timedb.contract.wire import ReadTicket, parse_object
from timedb.storage import Tenant

WHOLE = [{"ordered": True, "order_by": "valid_time"}, {"limit": 7}, {"limit": 7, "order_by": "valid_time"}]
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
    plan.put_together(lambda: asked.append(1))
    assert len(asked) == (2 if fields in WHOLE else 0)
    found: pa.Table = plan.reader().read_all()
    assert found.num_rows == fields.get("limit", 12)
    assert found == tenant.plan_read(ticket).reader().read_all()
    assert len(asked) <= 2


@pytest.mark.parametrize("fields", WHOLE)
def test_it_is_given_up_before_the_next_bucket(tenant: Tenant, fields: dict[str, object]) -> None:
    left = [True, False]

    def still_wanted() -> None:
        if not left.pop(0):
            raise Timeout("the client gave up")

    plan = tenant.plan_read(read(tenant, fields))
    with pytest.raises(Timeout, match="the client gave up"):
        plan.put_together(still_wanted)
    assert not left
