"""Plays a history through a door and to the oracle, and compares what both answer."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import uuid4

import pyarrow as pa

from tests.behaviour.complete import Complete
from tests.behaviour.doors import Door, iso, json_number
from tests.behaviour.histories import (
    SERIES,
    WORKFLOWS,
    Bounds,
    Compaction,
    Correction,
    NewRow,
    Read,
    Restoration,
    Upload,
    Withdrawal,
    Write,
)
from tests.behaviour.oracle import Oracle, Row, float_bits
from tests.behaviour.periods import END, START, Resampled, same
from timedb.contract.columns import COLUMN_TYPES, META_CURSOR
from timedb.contract.identity import RevisionKey
from timedb.contract.times import from_micros, parse_time, to_micros

_SESSION = uuid4().hex[:8]
_EXAMPLES = itertools.count()
ORDERS = {
    "series": ("series_id", "valid_time"),
    "valid_time": ("valid_time", "series_id"),
    "known_time": ("known_time", "valid_time", "series_id"),
}
_COMPARED = tuple(Row.__dataclass_fields__)


def play(door: Door, history: list[Write], *, check_each: bool = False) -> Played:
    """Do every write of a history, on series of its own; ``check_each``: compare the flat view after each of them."""
    played = Played(door)
    for write in history:
        played.write(write)
        if check_each:
            played.check("flat", columns=["series_id", "valid_time", "valid_time_end", "value", "run_id"])
    played.learn_change_times()
    return played


class Played:
    """A history that both a door and the oracle were told."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.oracle = Oracle()
        self.complete = Complete(self.oracle)
        self.name = f"{type(door).__name__}-{_SESSION}-{next(_EXAMPLES)}"
        self.series = [door.create_series(f"{self.name}-{index}") for index in range(SERIES)]
        self.runs: list[str] = []
        self.ranks: dict[int, int] = {}

    def write(self, write: Write) -> None:
        """Do one write, and compare what the door said of it."""
        match write:
            case Upload():
                self._upload(write)
            case Correction():
                self._correct(write)
            case Withdrawal():
                run_id = self.runs[write.target % len(self.runs)]
                withdrawn = self.door.withdraw_run(run_id, write.reason)
                assert withdrawn == self.oracle.withdraw(run_id, write.reason)
                self.complete.oracle.withdraw(run_id, write.reason)
            case Restoration():
                run_id = self.runs[write.target % len(self.runs)]
                assert self.door.restore_run(run_id, write.reason) == self.oracle.restore(run_id, write.reason)
                self.complete.oracle.restore(run_id, write.reason)
            case Compaction():
                self.door.compact()

    def _upload(self, write: Upload) -> None:
        # Ids whose order is not the order of the uploads: run_id breaks a tie only after change_time.
        run_id = f"{self.name}-run-{7919 * len(self.runs) % 1000:03}"
        self.runs.append(run_id)
        rows = list({row.key: row for row in (self._row(new, write, run_id) for new in write.rows)}.values())
        workflow_id = self._workflow(len(self.runs) - 1)
        skipped = self.door.upload(
            rows,
            run_id=run_id,
            known_time=write.known_time,
            skip_unchanged=write.skip_unchanged,
            workflow_id=workflow_id,
        )
        assert skipped == self.oracle.upload(rows, skip_unchanged=write.skip_unchanged)
        self.complete.upload(rows)

    @staticmethod
    def _workflow(number: int) -> str:
        return f"flow-{number % WORKFLOWS}"

    def _row(self, new: NewRow, write: Upload, run_id: str) -> Row:
        end = None if new.length is None else new.valid_time + new.length
        known_time = write.known_time if new.known_time is None else new.known_time
        tags = None if new.tags is None else tuple(new.tags)
        series_id = self.series[new.series]
        return Row(
            series_id, new.valid_time, end, known_time, run_id, 0, new.value, new.annotation, tags, retracted=False
        )

    def _correct(self, write: Correction) -> None:
        if not self.oracle.rows:
            return
        target = self.oracle.rows[write.target % len(self.oracle.rows)]
        address = {"series_id": target.series_id, "valid_time": iso(target.valid_time)}
        if target.valid_time_end is not None:
            address["valid_time_end"] = iso(target.valid_time_end)
        winners = [row for row in self.oracle.answer() if row.key[:3] == target.key[:3]]
        if write.address == "winner" and winners:
            target = winners[0]
        elif write.address == "run":
            address |= {"run_id": target.run_id, "known_time": iso(target.known_time)}
        else:
            address = {"value_id": value_id(target)}
        answer = self.door.update_values([{**address, **json_changes(write.changes)}])
        changed = self.oracle.correct(target, **write.changes)
        self.complete.correct(target, write.changes, winner="run_id" not in address and "value_id" not in address)
        assert (len(answer["updated"]), len(answer["skipped_no_ops"])) == (int(changed), int(not changed))
        (item,) = answer["updated"] or answer["skipped_no_ops"]
        assert item is None or item["value_id"] == value_id(target), "a door of tables counts"

    def learn_change_times(self) -> None:
        """Find out at which change_time each write was stamped: they must follow the order of the writes. All that was
        written is compared, too.
        """
        audit = self.door.read("overlapping", all_versions=True, series_ids=self.series)
        times = sorted(set(audit.column("change_time").cast(pa.int64()).to_pylist()))
        ranks = sorted({row.change_rank for row in self.oracle.rows})
        assert len(times) == len(ranks), "one change_time an upload and a correction"
        self.ranks = dict(zip(times, ranks, strict=True))
        self._compare(audit, "overlapping", True, {"series_ids": self.series})

    def check_wide(self, view: str) -> None:
        """Compare an answer whose series stand side by side with the rows of the oracle's brought there."""
        answer = self.door.read(view, series_ids=self.series, pivot="series_key")
        key = ["valid_time", "valid_time_end", *(("known_time", "run_id") if view == "overlapping" else ())]
        names = {f"{self.name}-{index}": series for index, series in enumerate(self.series)}
        assert answer.column_names == [*key, *sorted(names)]
        wide: dict[tuple[Any, ...], dict[str, float | None]] = {}
        for row in self.oracle.answer(view, series=self.series):
            wide.setdefault(tuple(getattr(row, name) for name in key), {})[row.series_id] = row.value
        expected = [
            (*place, *(plain(cells.get(names[name])) for name in sorted(names))) for place, cells in wide.items()
        ]
        assert self._comparable(answer, answer.column_names) == sorted(expected, key=repr)

    def check_periods(self, asked: Resampled) -> None:
        """Compare an answer that is brought to periods with the values of the oracle's brought there."""
        key = ["series_id", *(("known_time", "run_id") if asked.view == "overlapping" else ())]
        key += ["valid_time", "valid_time_end"]
        answer = self.door.read(asked.view, series_ids=self.series, columns=[*key, "value"], **asked.fields())
        cells = [answer.column(name) for name in key]
        places = [cell.cast(pa.int64()) if pa.types.is_timestamp(cell.type) else cell for cell in cells]
        found = dict(
            zip(zip(*(place.to_pylist() for place in places), strict=True), answer["value"].to_pylist(), strict=True)
        )
        assert len(found) == answer.num_rows
        expected = asked.expected(self.oracle.answer(asked.view, series=self.series, start_valid=START, end_valid=END))
        assert found.keys() == expected.keys()
        assert {place: value for place, value in found.items() if not same(value, expected[place])} == {}

    def check_runs(self) -> None:
        """Compare what runs say of their withdrawal with the oracle."""
        for run_id in self.runs:
            run = self.door.get_run(run_id)
            rows, rank = self.oracle.withdrawn(run_id)
            assert run["withdrawn_rows"] == rows
            note = run["withdrawn"]
            assert (note and self.ranks[to_micros(parse_time(note["time"]))]) == rank

    def fields(self, read: Read) -> dict[str, Any]:
        """A read's filters as a door takes them."""
        fields: dict[str, Any] = {"series_ids": [self.series[index] for index in read.series]}
        fields |= self._bounds("valid", read.valid, {row.valid_time for row in self.oracle.rows})
        fields |= self._bounds("known", read.known, {row.known_time for row in self.oracle.rows})
        if read.relative is not None:
            fields["relative"] = read.relative
        if read.lead_time is not None:
            fields["lead_time"] = read.lead_time
        if read.runs is not None:
            fields["run_ids"] = [self.runs[index % len(self.runs)] for index in read.runs]
        if read.workflow is not None:
            fields["workflow_id"] = "of no run" if read.workflow == WORKFLOWS else self._workflow(read.workflow)
        if read.newest_run:
            fields["newest_run"] = True
        if read.last is not None:
            fields["last"] = read.last
        if read.revision:
            fields["columns"] = list(COLUMN_TYPES)
        times = sorted(self.ranks)
        if read.corrections is not None and times:
            fields["corrections"] = read.corrections
            if read.corrections == "by_cutoff" and not fields.keys() & {"relative", "lead_time", "end_known"}:
                # At some write, or a microsecond after it: whether the cut-off is inclusive shows at those.
                fields["end_known"] = times[len(times) * len(read.series) // 4] + len(times) % 2
        if read.as_of is not None and times:
            # Just before the first write, or exactly at one: as_of is inclusive.
            position = round(read.as_of * len(times))
            fields["as_of"] = times[position - 1] if position else times[0] - 1
        return fields

    @staticmethod
    def _bounds(name: str, shares: Bounds, instants: set[int]) -> dict[str, int]:
        # Each instant of the history and the microsecond after it: whether bounds are inclusive shows at those.
        edges = sorted({instant + shift for instant in instants for shift in (0, 1)})
        given = sorted(share for share in shares if share is not None)
        found = [edges[min(int(share * len(edges)), len(edges) - 1)] for share in given] if edges else []
        names = [f"start_{name}", f"end_{name}"]
        wanted = [each for each, share in zip(names, shares, strict=True) if share is not None]
        return dict(zip(wanted, found, strict=False))

    def check_read(self, read: Read) -> None:
        """Compare one drawn read."""
        self.check(read.view, all_versions=read.all_versions, **self.fields(read))

    def check(self, view: str, *, all_versions: bool = False, **fields: Any) -> pa.Table:
        """Compare the door's answer with the oracle's, row for row; the answer."""
        fields = {"series_ids": self.series, **fields}
        answer = self.door.read(view, all_versions=all_versions, **fields)
        self._compare(answer, view, all_versions, fields)
        return answer

    def _compare(self, answer: pa.Table, view: str, all_versions: bool, fields: dict[str, Any]) -> None:
        asked = {name: value for name, value in fields.items() if name not in ("series_ids", "as_of", "columns")}
        if "workflow_id" in fields:
            workflow, named = asked.pop("workflow_id"), asked.get("run_ids", self.runs)
            of_workflow = (run for number, run in enumerate(self.runs) if self._workflow(number) == workflow)
            asked["run_ids"] = [run for run in of_workflow if run in named]
        if "as_of" in fields:
            asked["as_of"] = self.ranks.get(fields["as_of"], 0)
        asked["numbered"] = "revision" in fields.get("columns", ())
        if "corrections" in asked:
            asked["times"] = {rank: time for time, rank in self.ranks.items()}
        expected = self.oracle.answer(view, all_versions=all_versions, series=fields["series_ids"], **asked)
        columns = [name for name in _COMPARED if name in self._names(answer)]
        assert {"series_id", "valid_time", "value"} <= set(columns)
        assert self._comparable(answer, columns) == sorted(
            (tuple(plain(getattr(row, name)) for name in columns) for row in expected), key=repr
        )

    def pages(self, read: Read, fields: dict[str, Any]) -> list[pa.Table]:
        """A read under a limit, page after page until there is no cursor."""
        pages = [self.door.read(read.view, all_versions=read.all_versions, **fields)]
        while cursor := (pages[-1].schema.metadata or {}).get(META_CURSOR):
            after = {**fields, "after": cursor.decode()}
            pages.append(self.door.read(read.view, all_versions=read.all_versions, **after))
        return pages

    @staticmethod
    def in_order(answer: pa.Table, order_by: str, *, descending: bool = False) -> bool:
        """Whether rows lie in the order that the contract gives ``order_by``; ``descending``: by later times first."""
        sign = -1 if descending else 1
        columns = [
            answer.column(key).to_pylist()
            if key == "series_id"
            else [sign * time for time in answer.column(key).cast(pa.int64()).to_pylist()]
            for key in ORDERS[order_by]
        ]
        rows = list(zip(*columns, strict=True))
        return rows == sorted(rows)

    @staticmethod
    def _names(answer: pa.Table) -> list[str]:
        return ["change_rank" if name == "change_time" else name for name in answer.column_names]

    def _comparable(self, answer: pa.Table, columns: list[str]) -> list[tuple[Any, ...]]:
        found = answer.rename_columns(self._names(answer))
        values: list[list[Any]] = []
        for name in columns:
            column = found.column(name)
            if pa.types.is_timestamp(column.type):
                assert column.type == pa.timestamp("us", tz="UTC")
                column = column.cast(pa.int64())
            cells = column.to_pylist()
            if name == "change_rank":
                cells = [self.ranks[cell] for cell in cells]
            if name == "retracted":
                cells = [bool(cell) for cell in cells]
            values.append([plain(cell) for cell in cells])
        return sorted(zip(*values, strict=True), key=repr)


def plain(cell: Any) -> Any:
    """A cell so that equal means the same bits; lists are tuples."""
    if isinstance(cell, float):
        return ("float", float_bits(cell))
    return tuple(cell) if isinstance(cell, list) else cell


def value_id(row: Row) -> str:
    """The value_id of a row's revision."""
    end = None if row.valid_time_end is None else from_micros(row.valid_time_end)
    key = RevisionKey(row.series_id, from_micros(row.valid_time), end, from_micros(row.known_time), row.run_id)
    return key.to_value_id()


def json_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """The fields of a correction as JSON carries them."""
    return {name: json_number(value) if name == "value" else value for name, value in changes.items()}
