"""Who follows gets every version once, from wherever it goes on, whatever upkeep does meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.lakes import (
    AUDIT,
    MICROS,
    Sent,
    Stored,
    by_itself,
    hour,
    open_tenant,
    read,
    read_table,
    some_rows,
    stored_rows,
    tiny_settings,
    upload,
)
from tests.storage.operations import write_history
from tests.storage.retaining import apply, day, rule
from timedb.contract.errors import Busy, InvalidRequest, NotFound
from timedb.contract.wire import CreateSeries, FollowTicket, ListSeries, UpdateSeries, parse_object
from timedb.storage import Follower, Lake, Tenant
from timedb.storage.delta.log import DeltaLog
from timedb.storage.maintain.moving import Mover

OLD_TOKEN = "eyJhc19vZiI6IjIwMjUtMDEtMDFUMDA6MDA6MDAuMDAwMDAwKzAwOjAwIiwidGFibGVfdmVyc2lvbiI6MX0="
"""Of release 0.1.0, before anything that is written here."""


@pytest.fixture
def tenant(lake_dir: Path) -> Iterator[Tenant]:
    """A tenant whose log nobody looks at unasked."""
    with closing(Lake.open(str(lake_dir), tiny_settings(follow_look_seconds=10_000.0))) as lake:
        yield open_tenant(lake)


@pytest.fixture
def follow(tenant: Tenant) -> Iterator[Callable[..., Follower]]:
    """Begins to follow everything, or what the fields say."""
    with ExitStack() as followers:

        def follow(since: str | None = None, **fields: Any) -> Follower:
            follower = tenant.follow(parse_object(FollowTicket, {"since": since, "columns": AUDIT, **fields}))
            followers.callback(follower.leave)
            return follower

        yield follow


def taken(follower: Follower) -> list[tuple[Stored, str]]:
    """What there is for a follower now, in its order: each row with the token of what comes after it."""
    found = []
    while follower.is_behind:
        for followed in follower.passage():
            if followed is not None:
                rows = stored_rows(pa.Table.from_batches([followed.rows]))
                found += [(row, followed.token(place)) for place, row in enumerate(rows, 1)]
    return found


def rows_of(follower: Follower) -> list[Stored]:
    """The rows alone."""
    return [row for row, _ in taken(follower)]


def names_of(follower: Follower) -> set[str]:
    """The series of the rows."""
    return {row.series for row in rows_of(follower)}


def test_every_version_comes_once_from_wherever_it_goes_on(tenant: Tenant, follow: Callable[..., Follower]) -> None:
    write_history(tenant)
    before = taken(follow())
    assert Counter(row for row, _ in before) == Counter(read(tenant))
    mover = Mover(tenant.values, tenant.lane, bucket_digits=tenant.bucket_digits, input_rows=1000)
    upload(tenant, some_rows(20, known=30, value=30.0), "later")
    expected = before + taken(follow(before[-1][1]))

    def check() -> None:
        for place in range(0, len(expected), 19):
            rest = [row for row, _ in expected[place + 1 :]]
            token = expected[place][1]
            assert Counter(rows_of(follow(token))) == Counter(rest)
            since = stored_rows(read_table(tenant, view="changes", columns=AUDIT, since=token))
            assert Counter(since) == Counter(rest)

    check()
    mover.gather(2)
    check()
    tenant.maintain()
    check()
    assert not rows_of(follow(expected[-1][1]))


def test_the_order_of_a_passage_is_the_same_however_it_is_read(tenant: Tenant, follow: Callable[..., Follower]) -> None:
    write_history(tenant)
    at_once = taken(follow())
    tenant.compact()
    watch, catalog = tenant._watch, tenant.catalog
    ticket = parse_object(FollowTicket, {"columns": AUDIT})
    for place, (_, token) in enumerate([(None, None), *at_once[:-1:30]]):
        by_bucket = Follower(
            ticket.model_copy(update={"since": token}), watch, catalog, partial(tenant.plan_read, at_once_rows=0)
        )
        first = 0 if token is None else 30 * (place - 1) + 1
        assert rows_of(by_bucket) == [row for row, _ in at_once[first:]]
        by_bucket.leave()


def test_columns_that_are_not_asked_for_are_no_matter(tenant: Tenant, follow: Callable[..., Follower]) -> None:
    upload(tenant, some_rows(6), "a")
    (followed,) = [each for each in follow(columns=["value"]).passage() if each is not None]
    assert followed.rows.column("value").to_pylist() != []
    assert len(rows_of(follow(followed.token(4)))) == 2


def test_fifty_followers_cost_the_log_what_one_does(tenant: Tenant, follow: Callable[..., Follower]) -> None:
    looks: list[int] = []

    def counted(log: DeltaLog, real: Callable[..., Any], *args: Any) -> Any:
        if not by_itself():
            looks.append(1)
        return real(log, *args)

    def cost(followers: list[Follower], known: int) -> int:
        looks.clear()
        upload(tenant, some_rows(3, known=known), f"run-{known}")
        for each in followers:
            while not each.is_behind:
                each.wait(10.0)
            assert len(rows_of(each)) == 3
        return len(looks)

    with pytest.MonkeyPatch.context() as patch:
        real = DeltaLog.refresh
        patch.setattr(DeltaLog, "refresh", lambda log, *args: counted(log, real, *args))
        one = [follow("now")]
        cost(one, 0)
        alone = [cost(one, known) for known in (1, 2, 3)]
        many = [*one, *(follow("now", labels={}) for _ in range(49))]
        assert [cost(many, known) for known in (4, 5, 6)] == alone
    assert alone[0] > 0, "what is counted is there"


def test_what_another_server_commits_is_found(lake_dir: Path) -> None:
    settings = tiny_settings(follow_look_seconds=0.01)
    with closing(Lake.open(str(lake_dir), settings)) as one, closing(Lake.open(str(lake_dir), settings)) as other:
        follower = open_tenant(one).follow(parse_object(FollowTicket, {"since": "now", "columns": AUDIT}))
        upload(open_tenant(other), some_rows(4), "elsewhere")
        while not follower.is_behind:
            follower.wait(10.0)
        assert len(rows_of(follower)) == 4
        follower.leave()


def test_labels_take_in_what_is_made_later_and_names_stay_what_they_were(
    tenant: Tenant, follow: Callable[..., Follower]
) -> None:
    for site in ("north", "south"):
        tenant.create_series(CreateSeries(name="load", labels={"site": site}), created_by=None)
    tenant.create_series(CreateSeries(name="wind"), created_by=None)
    labelled = follow(labels={"site": ["east", "north"]})
    both = follow(series_keys=["load"], labels={"site": ["east", "north"]})
    named = follow(series_keys=["wind"])
    (wind,) = tenant.list_series(ListSeries(name="wind"))
    tenant.update_series(UpdateSeries(series_id=wind["series_id"], name="gale"))
    for name, site in (("load", "east"), ("price", "east"), ("load", "west")):
        tenant.create_series(CreateSeries(name=name, labels={"site": site}), created_by=None)
    every = [each["series_id"] for each in tenant.list_series(ListSeries())]
    at = pa.array([hour(0)] * len(every), MICROS)
    upload(tenant, pa.table({"series_id": every, "valid_time": at, "value": [1.0] * len(every)}))
    for follower in (labelled, both, named):
        follower.wait(10.0)
    assert sorted(row.series for row in rows_of(labelled)) == ["load", "load", "price"]
    assert sorted(row.series for row in rows_of(both)) == ["load", "load"]
    assert names_of(named) == {"gale"}
    with pytest.raises(NotFound):
        follow(series_keys=["wind"])


def test_a_token_from_before_rows_that_retention_took_unread_is_refused(
    tenant: Tenant, follow: Callable[..., Follower]
) -> None:
    upload(tenant, [Sent("a", day(1), None, day(1), 1.0)], "old")
    seen = follow("now").token
    upload(tenant, [Sent("a", day(2), None, day(2), 2.0), Sent("a", day(90), None, day(2), 3.0)], "unread")
    in_the_middle = taken(follow())[0][1]
    read_since = follow("now").token
    apply(tenant, rule(drop_after_days=50))
    for token in (seen, in_the_middle):
        with pytest.raises(InvalidRequest, match="since: retention has removed rows"):
            rows_of(follow(token))
        with pytest.raises(InvalidRequest, match="since: retention has removed rows"):
            read_table(tenant, view="changes", since=token)
    assert rows_of(follow(seen, start_valid="2025-03-20T00:00:00Z"))[0].valid_time == day(90)
    upload(tenant, [Sent("a", day(91), None, day(3), 4.0)], "later")
    assert [row.valid_time for row in rows_of(follow(read_since))] == [day(91)]
    whole = taken(follow())
    assert [row.valid_time for row, _ in whole] == [day(90), day(91)]
    assert [row.valid_time for row in rows_of(follow(whole[0][1]))] == [day(91)], "begun after retention"


def test_what_a_follower_reads_of_a_lake_whose_retention_left_no_mark_of_change_times(
    tenant: Tenant, follow: Callable[..., Follower]
) -> None:
    """As release 0.1.0 removed rows: whatever was written up to then may have been among them."""
    upload(tenant, [Sent("a", day(1), None, day(1), 1.0), Sent("a", day(90), None, day(1), 1.0)], "old")
    token = follow("now").token
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("timedb.storage.maintain.retention.REMOVED_CHANGED", "another.")
        apply(tenant, rule(drop_after_days=50))
    with pytest.raises(InvalidRequest, match="retention has removed rows"):
        rows_of(follow(token))


def test_tokens_of_old_releases_are_read_and_others_refused(tenant: Tenant, follow: Callable[..., Follower]) -> None:
    upload(tenant, some_rows(5), "a")
    assert len(rows_of(follow(OLD_TOKEN))) == 5
    middle = taken(follow())[2][1]
    with pytest.raises(InvalidRequest, match="token: it is of the middle"):
        read_table(tenant, token=middle)
    for wrong in ("later", OLD_TOKEN[:-4], middle[:-8]):
        with pytest.raises(InvalidRequest, match=r"since: .* is not the token of an answer"):
            follow(wrong)


def test_a_lake_that_is_behind_a_token_is_another_one(
    tenant: Tenant, follow: Callable[..., Follower], tmp_path: Path
) -> None:
    upload(tenant, some_rows(5), "a")
    token = taken(follow())[2][1]
    refused = pytest.raises(InvalidRequest, match=r"since: .*belongs to another lake")
    with closing(Lake.open(str(tmp_path / "other"), tiny_settings())) as other, refused:
        open_tenant(other).follow(FollowTicket(since=token))


def test_who_waits_is_told_that_the_service_stops(lake_dir: Path) -> None:
    lake = Lake.open(str(lake_dir), tiny_settings())
    follower = open_tenant(lake).follow(FollowTicket(since="now"))
    lake.close()
    with pytest.raises(Busy, match="stopping"):
        follower.wait(60.0)
    follower.leave()
