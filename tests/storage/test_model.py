"""A machine of random writes, crashes and maintenance, every answer compared with a plain model.

``TIMEDB_TEST_EXAMPLES=500`` draws that many histories, at random, and shrinks one that fails.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.storage.disk import Disk, Point
from tests.storage.lakes import (
    AUDIT,
    SERIES,
    Sent,
    Stored,
    hour,
    open_tenant,
    read,
    read_table,
    scan_delta,
    shuffled,
    some_rows,
    stored_rows,
    tiny_settings,
    upload,
)
from tests.storage.model import Model
from tests.storage.operations import copy_lake
from timedb.contract.columns import META_AS_OF, META_CURSOR
from timedb.contract.errors import Conflict
from timedb.contract.identity import OPEN_TENANT_ID, RevisionKey, series_id_for
from timedb.contract.times import format_time, from_micros, parse_time, to_micros
from timedb.contract.wire import GetRun, ListSeries, RestoreRun, UpdateValues, WithdrawRun
from timedb.storage import Lake, Tenant

EXAMPLES = int(os.environ.get("TIMEDB_TEST_EXAMPLES", "0"))  # read before the tests' environment is cleared
HALF_HOUR = 1_800_000_000
VALUES = [None, float("nan"), -0.0, 0.0, 1.5, 2.5, float("inf")]
ANNOTATIONS = [None, " ", "checked"]
TAGS = [None, (), ("B ", "b"), ("a",)]
VIEWS = list(itertools.product(("flat", "overlapping"), (False, True)))


def sent_row(hours: int, length: int | None, known: int | None, **fields: Any) -> Sent:
    """A row about some hour, an interval where it has a length."""
    start = hour(hours)
    end = None if length is None else start + length
    return Sent(valid_time=start, valid_time_end=end, known_time=None if known is None else hour(known), **fields)


sent_rows = st.builds(
    sent_row,
    hours=st.integers(0, 4),
    length=st.sampled_from([None, None, HALF_HOUR, 2 * HALF_HOUR]),
    known=st.sampled_from([None, 0, 1, 2, 3]),
    series=st.sampled_from(SERIES),
    value=st.sampled_from(VALUES),
    annotation=st.sampled_from(ANNOTATIONS),
    tags=st.sampled_from(TAGS),
)
known_times = st.integers(0, 3).map(hour)
changes = st.fixed_dictionaries(
    {},
    optional={
        "value": st.sampled_from([*VALUES, 7.0]),
        "annotation": st.sampled_from(ANNOTATIONS),
        "tags": st.sampled_from(TAGS).map(lambda tags: None if tags is None else list(tags)),
        "retracted": st.sampled_from([True, False, None]),
    },
).filter(bool)


def bounds(start: str, end: str) -> st.SearchStrategy[dict[str, int]]:
    """A half-open range of hours, or one side of it, or none."""
    pair = st.tuples(st.integers(0, 5).map(hour), st.integers(0, 5).map(hour)).map(sorted)
    return st.one_of(
        st.just({}),
        pair.map(lambda two: {start: two[0], end: two[1]}),
        pair.map(lambda two: {start: two[0]}),
        pair.map(lambda two: {end: two[1]}),
    )


filters = st.tuples(bounds("start_valid", "end_valid"), bounds("start_known", "end_known")).map(
    lambda two: {**two[0], **two[1]}
)


class LakeMachine(RuleBasedStateMachine):
    """One lake, and the model of what must be in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folders = (folder / str(number) for number in itertools.count())
        self.folder = next(self.folders)
        self.model = Model()
        self.runs: dict[str, tuple[list[Sent], dict[str, Any], dict[str, Any]]] = {}
        self.said: list[tuple[dict[str, Any], list[Stored]]] = []
        self.ids: dict[str, str] = {}
        self.numbers = itertools.count()

    def open(self, *, busy: bool) -> None:
        """Open the lake; ``busy``: compaction and checkpoints run all the time beside the writes."""
        settings = tiny_settings(
            retention_hours=0,
            log_retention_hours=0,
            maintenance_seconds=0.02 if busy else 10_000.0,
            max_call_seconds=3600 if busy else 1e-9,  # what is being read is not to be cleaned away beside it
            mixed_rows=self.mixed_rows,
        )
        self.lake = Lake.open(str(self.folder), settings)

    @property
    def tenant(self) -> Tenant:
        """The tenant of the lake that is open now."""
        return open_tenant(self.lake)

    @initialize(busy=st.booleans(), mixed_rows=st.sampled_from((0, 3, 10_000)))
    def begin(self, busy: bool, mixed_rows: int) -> None:
        """A lake with a run in it."""
        self.mixed_rows = mixed_rows
        self.open(busy=busy)
        self.send(some_rows(8, known=1), {})

    def teardown(self) -> None:
        """Look at everything once more."""
        if hasattr(self, "lake"):
            try:
                if sys.exc_info()[0] is None:  # else the history has failed already
                    self.look()
                    self.remember()
            finally:
                self.lake.close()

    # Uploads

    def new_run(self) -> str:
        return f"run-{next(self.numbers)}"

    def send(self, rows: list[Sent], fields: dict[str, Any], run_id: str | None = None) -> None:
        """Upload and let the model learn it."""
        run_id = run_id or self.new_run()
        fields = {"known_time": from_micros(hour(0)), **fields}
        receipt = upload(self.tenant, rows, run_id, **fields)
        self.take_in(run_id, rows, fields, receipt)

    def take_in(self, run_id: str, rows: list[Sent], fields: dict[str, Any], receipt: dict[str, Any]) -> None:
        known_time = hour((fields["known_time"] - from_micros(hour(0))).seconds // 3600)
        skip = fields.get("skip_unchanged", False)
        expected = self.model.upload(run_id, rows, known_time, skip_unchanged=skip)
        stamps = self.model.learn(expected, read(self.tenant))
        assert (receipt["rows"], receipt["skipped"]) == (len(expected), len(rows) - len(expected))
        assert stamps in ([], [_micros(receipt["change_time"])])
        self.runs[run_id] = rows, fields, receipt

    @rule(rows=st.lists(sent_rows, min_size=1, max_size=8), known=known_times, skip=st.booleans())
    def upload(self, rows: list[Sent], known: int, skip: bool) -> None:
        fields = {"known_time": from_micros(known), **({"skip_unchanged": True} if skip else {})}
        self.send(distinct(rows, known), fields)

    @rule(
        count=st.integers(12, 40), first=st.integers(0, 3), known=st.integers(0, 3), value=st.sampled_from([0.0, 9.0])
    )
    def bulk(self, count: int, first: int, known: int, value: float) -> None:
        self.send(some_rows(count, first=first, known=known, value=value), {})

    @rule(several=st.lists(st.lists(sent_rows, min_size=1, max_size=4), min_size=2, max_size=4), known=known_times)
    def uploads_at_once(self, several: list[list[Sent]], known: int) -> None:
        fields: dict[str, Any] = {"known_time": from_micros(known)}
        uploads = [(self.new_run(), distinct(rows, known)) for rows in several]
        with ThreadPoolExecutor(len(uploads)) as pool:
            receipts = list(pool.map(lambda run: upload(self.tenant, run[1], run[0], **fields), uploads))
        expected = [row for run_id, rows in uploads for row in self.model.upload(run_id, rows, known)]
        stamps = self.model.learn(expected, read(self.tenant))
        assert stamps == sorted(_micros(receipt["change_time"]) for receipt in receipts)
        for (run_id, rows), receipt in zip(uploads, receipts, strict=True):
            self.runs[run_id] = rows, fields, receipt

    @rule(data=st.data(), seed=st.integers(0, 3), batch_rows=st.sampled_from([1, 5, 1000]))
    def retry(self, data: st.DataObject, seed: int, batch_rows: int) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.runs)))
        rows, fields, receipt = self.runs[run_id]
        again = upload(self.tenant, shuffled(rows, seed), run_id, batch_rows=batch_rows, **fields)
        rows_gone, whole = self.model.withdrawn_rows(run_id)
        assert bool(again["withdrawn"]) == whole
        assert again == {**receipt, "withdrawn": again["withdrawn"], "withdrawn_rows": rows_gone}
        self.model.learn([], read(self.tenant))

    @rule(data=st.data())
    def conflict(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.runs)))
        rows, fields, _ = self.runs[run_id]
        with pytest.raises(Conflict, match="run_id"):
            upload(self.tenant, [rows[0]._replace(value=123.0), *rows[1:]], run_id, **fields)
        self.model.learn([], read(self.tenant))

    # Corrections

    @rule(data=st.data(), items=st.lists(changes, min_size=1, max_size=3), named=st.booleans())
    def correct(self, data: st.DataObject, items: list[dict[str, Any]], named: bool) -> None:
        updates = []
        expected: dict[tuple[Any, ...], Stored | None] = {}
        for item in items:
            target = data.draw(st.sampled_from(self.model.rows))
            address, target = self.address(target, data.draw(st.sampled_from(["value_id", "run", "winner"])))
            changed_by = data.draw(st.sampled_from([None, "me"]))
            expected.pop(target.revision, None)
            expected[target.revision] = self.model.corrected(target, item, changed_by)
            updates.append({**address, **item, **({"changed_by": changed_by} if changed_by else {})})
        body = {"updates": updates, **({"update_id": self.new_run()} if named else {})}
        answer = self.tenant.update_values(UpdateValues.model_validate(body), changed_by=None)
        new = [row for row in expected.values() if row is not None]
        assert (len(answer["updated"]), len(answer["skipped_no_ops"])) == (len(new), len(expected) - len(new))
        self.model.learn(new, read(self.tenant))
        stamped = sorted(self.model.rows[len(self.model.rows) - len(new) :], key=lambda row: row.change_time)
        assert [row.revision for row in stamped] == [row.revision for row in new], "in the order of the items"
        assert len({row.change_time for row in stamped}) == len(new), "a change_time an item"
        if named:
            assert self.tenant.update_values(UpdateValues.model_validate(body), changed_by=None) == answer
            self.model.learn([], read(self.tenant))

    @rule(data=st.data(), change=changes)
    def add_by_correction(self, data: st.DataObject, change: dict[str, Any]) -> None:
        run_id = data.draw(st.sampled_from(sorted({row.run_id for row in self.model.rows})))
        series = data.draw(st.sampled_from(SERIES))
        valid_time, known_time = hour(100 + next(self.numbers)), self.runs[run_id][1]["known_time"]
        address = {"run_id": run_id, "series_id": self.series_id(series), "valid_time": from_micros(valid_time)}
        change = {"value": 3.0, **change}
        message = UpdateValues.model_validate({"updates": [{**address, **change}]})
        like = Stored(series, 0, None, 0, 0, run_id, None, None, None, None, False)
        new = self.model.first_version(like, valid_time, _micros(format_time(known_time)), change, None)
        assert new is not None
        self.tenant.update_values(message, changed_by=None)
        self.model.learn([new], read(self.tenant))

    @rule(data=st.data(), reason=st.sampled_from([None, " ", "bad weather"]))
    def withdraw(self, data: st.DataObject, reason: str | None) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.runs)))
        new = self.model.withdrawn(run_id, reason, "me")
        message = WithdrawRun(run_id=run_id, reason=reason, changed_by="me")
        assert self.tenant.withdraw_run(message, changed_by=None) == {"withdrawn": len(new)}
        self.model.withdrawals.update(self.model.learn(new, read(self.tenant)))

    @rule(data=st.data(), reason=st.sampled_from([None, " ", "right after all"]))
    def restore(self, data: st.DataObject, reason: str | None) -> None:
        gone = {row.run_id for row in self.model.rows if row.retracted}
        run_id = data.draw(st.sampled_from(sorted(gone or self.runs)))
        new = self.model.restored(run_id, reason, "me")
        retracted, _ = self.model.withdrawn_rows(run_id)
        message = RestoreRun(run_id=run_id, reason=reason, changed_by="me")
        said = {"restored": len(new), "left_retracted": retracted - len(new)}
        assert self.tenant.restore_run(message, changed_by=None) == said
        self.model.learn(new, read(self.tenant))
        left, whole = self.model.withdrawn_rows(run_id)
        run = self.tenant.get_run(GetRun(run_id=run_id))
        assert (run["withdrawn_rows"], run["withdrawn"] is not None) == (left, whole)

    @precondition(lambda self: any(row.retracted for row in self.model.rows))
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        target = data.draw(st.sampled_from([row for row in self.model.rows if row.retracted]))
        address, _ = self.address(target, "value_id")
        message = UpdateValues.model_validate({"updates": [{**address, "retracted": False}]})
        new = self.model.corrected(target, {"retracted": False}, None)
        self.tenant.update_values(message, changed_by=None)
        self.model.learn([] if new is None else [new], read(self.tenant))

    def address(self, target: Stored, kind: str) -> tuple[dict[str, Any], Stored]:
        """How a correction names a row, and which row that is."""
        end = None if target.valid_time_end is None else from_micros(target.valid_time_end)
        valid_time, known_time = from_micros(target.valid_time), from_micros(target.known_time)
        series_id = self.series_id(target.series)
        if kind == "value_id":
            key = RevisionKey(series_id, valid_time, end, known_time, target.run_id)
            return {"value_id": key.to_value_id()}, target
        address = {"series_id": series_id, "valid_time": valid_time, **({} if end is None else {"valid_time_end": end})}
        winner = self.model.winner(target)
        if kind == "winner" and winner is not None:
            return address, winner
        return {**address, "run_id": target.run_id, "known_time": known_time}, target

    def series_id(self, name: str) -> str:
        if name not in self.ids:
            self.ids = {one["name"]: one["series_id"] for one in self.tenant.list_series(ListSeries())}
        return self.ids.get(name) or series_id_for(OPEN_TENANT_ID, name, None)

    # Maintenance and crashes: no answer may change by them

    @rule()
    def compact(self) -> None:
        self.tenant.compact()
        self.look()
        self.remember()

    @rule()
    def maintain(self) -> None:
        self.tenant.maintain()
        self.look()
        self.remember()

    @rule(busy=st.booleans())
    def reopen(self, busy: bool) -> None:
        self.lake.close()
        self.open(busy=busy)
        self.remember()

    @rule(
        rows=st.lists(sent_rows, min_size=1, max_size=20), known=known_times, at=st.integers(1, 90), busy=st.booleans()
    )
    def crash_amid_an_upload(self, rows: list[Sent], known: int, at: int, busy: bool) -> None:
        """The process dies at some file operation of an upload; a retry settles whether it took place."""
        rows, run_id = distinct(rows, known), self.new_run()
        fields: dict[str, Any] = {"known_time": from_micros(known)}
        image, moments = next(self.folders), itertools.count(1)

        def observe(point: Point) -> None:
            if next(moments) == at:
                copy_lake(self.folder, image)

        with Disk(self.folder, observe=observe).watched() as disk:
            upload(self.tenant, rows, run_id, **fields)
            with disk.still():
                if not image.exists():
                    copy_lake(self.folder, image)
        self.lake.close()
        self.folder = image
        self.open(busy=busy)
        audit = read(self.tenant)
        whole = Counter(row.unstamped() for row in self.model.upload(run_id, rows, known))
        found = Counter(row.unstamped() for row in audit if row.run_id == run_id)
        assert found in (whole, Counter()), "wholly there or wholly absent"
        self.model.learn(found.elements(), audit)
        receipt = upload(self.tenant, rows, run_id, **fields)
        self.model.learn([] if found else whole.elements(), read(self.tenant))
        self.runs[run_id] = rows, fields, receipt

    # Reads

    @rule(
        view=st.sampled_from(VIEWS), asked=filters, series=st.one_of(st.none(), st.sampled_from(SERIES)), data=st.data()
    )
    def ask(self, view: tuple[str, bool], asked: dict[str, int], series: str | None, data: st.DataObject) -> None:
        stamps = sorted({row.change_time for row in self.model.rows})
        as_of = data.draw(st.one_of(st.none(), st.sampled_from([stamps[0] - 1, *stamps])))
        asked = {**asked, **({} if as_of is None else {"as_of": as_of})}
        self.check(*view, asked, series)
        if as_of is not None:
            fields: dict[str, Any] = {"view": view[0], "all_versions": view[1], **asked}
            self.said.append((fields, read(self.tenant, **fields)))

    @rule(
        view=st.sampled_from(VIEWS),
        limit=st.integers(1, 7),
        order_by=st.sampled_from(["series", "valid_time", "known_time"]),
    )
    def ask_page_by_page(self, view: tuple[str, bool], limit: int, order_by: str) -> None:
        """Pages are the answer cut up, and stay those of the first page's moment while writes go on."""
        expected = self.model.answer(view[0], all_versions=view[1])
        fields: dict[str, Any] = {"view": view[0], "all_versions": view[1], "limit": limit, "order_by": order_by}
        after = None
        pages: list[list[Stored]] = []
        while not pages or after is not None:
            page = read_table(self.tenant, **fields, columns=AUDIT, after=after)
            pages.append(stored_rows(page))
            assert len(pages[-1]) <= limit
            after = (page.schema.metadata or {}).get(META_CURSOR, b"").decode() or None
            if len(pages) == 1:
                self.send(some_rows(3, known=3, value=50.0), {})
        assert Counter(row for page in pages for row in page) == Counter(expected)

    def check(self, view: str, all_versions: bool, asked: dict[str, int], series: str | None = None) -> None:
        """One read, compared with the model."""
        chosen = {"series_keys": [series]} if series is not None and series in self.known_series() else {}
        table = self.tenant_read(view, all_versions, {**asked, **chosen})
        expected = self.model.answer(view, all_versions=all_versions, series=chosen.get("series_keys"), **asked)
        assert Counter(stored_rows(table)) == Counter(expected)
        newest = max(row.change_time for row in self.model.rows)
        resolved = min(asked.get("as_of", newest), newest)
        assert table.schema.metadata[META_AS_OF] == format_time(from_micros(resolved)).encode()

    def tenant_read(self, view: str, all_versions: bool, asked: dict[str, Any]) -> Any:
        instants = {name: from_micros(cell) if isinstance(cell, int) else cell for name, cell in asked.items()}
        return read_table(self.tenant, view=view, all_versions=all_versions, columns=AUDIT, **instants)

    def known_series(self) -> set[str]:
        return {row.series for row in self.model.rows}

    def look(self) -> None:
        """Every view of everything, and what a direct reader sees."""
        for view, all_versions in VIEWS:
            self.check(view, all_versions, {})
        assert Counter(scan_delta(self.folder)) == Counter(self.model.rows)

    def remember(self) -> None:
        """What was known by some change_time never changes."""
        for fields, answer in self.said[-6:]:
            assert Counter(read(self.tenant, **fields)) == Counter(answer)


def distinct(rows: list[Sent], known: int) -> list[Sent]:
    """The rows of an upload without those that it may not hold twice."""
    keys = {(*row[:3], known if row.known_time is None else row.known_time): row for row in rows}
    return list(keys.values())


def _micros(text: str) -> int:
    return to_micros(parse_time(text))


@pytest.mark.timeout(36_000 if EXAMPLES else 120)
def test_every_answer_is_that_of_the_model(tmp_path: Path) -> None:
    machines = itertools.count()
    profile = settings(
        max_examples=EXAMPLES or 5,
        stateful_step_count=50 if EXAMPLES else 20,
        derandomize=not EXAMPLES,
        phases=[*set(Phase) - {Phase.explain}] if EXAMPLES else [Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    run_state_machine_as_test(
        lambda: LakeMachine(tmp_path / str(next(machines))),  # type: ignore[arg-type]  # whatever makes a machine
        settings=profile,
    )
