"""The operations of the fault campaign: what is there before, what each does, and what is there afterwards."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from tests.behaviour.oracle import float_bits
from tests.storage.lakes import (
    MICROS,
    SERIES,
    Sent,
    Stored,
    hour,
    open_tenant,
    read,
    some_rows,
    tiny_settings,
    upload,
)
from tests.storage.model import Model
from timedb.contract.settings import ServerSettings
from timedb.contract.times import from_micros
from timedb.contract.wire import CorrectCommand, CreateSeries, GetRun, ListSeries, RestoreRun, UpdateValues, WithdrawRun
from timedb.storage import Lake, Tenant
from timedb.storage.boundary import translating_errors
from timedb.storage.maintain.moving import Mover

SMALL = [*some_rows(4, known=30, value=30.0), Sent("late", hour(1), hour(2), None, None, "new series", ("t",))]
BULK = some_rows(40, known=40, value=40.0, first=1)
SKIPPING = [*some_rows(6, known=50, value=20.0, first=4), *some_rows(3, known=51, value=-1.0)]


@dataclass(frozen=True)
class Operation:
    """One thing that a client or the service does to a lake, safe to be repeated.

    ``added`` are the rows that it adds, without change_time; ``holds`` says whether it has come true otherwise;
    ``answers_again``: a repetition answers as the first time; ``from_nothing``: it makes the lake too.
    """

    name: str
    run: Callable[[Tenant], Any]
    added: list[Stored] = field(default_factory=list)
    prepare: Callable[[Tenant], Any] | None = None
    holds: Callable[[Tenant], bool] = lambda tenant: True
    answers_again: bool = False
    from_nothing: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def lake_settings(self) -> ServerSettings:
        """The settings that the operation is run under."""
        return tiny_settings(**self.settings)

    def build(self, folder: Path) -> list[Stored]:
        """Make the lake that the operation starts from; its rows."""
        if self.from_nothing:
            return []
        copy_lake(_lake_with_history(self.lake_settings()), folder)
        with closing(Lake.open(str(folder), self.lake_settings())) as lake:
            tenant = open_tenant(lake)
            if self.prepare is not None:
                self.prepare(tenant)
            return read(tenant)


@cache
def _lake_with_history(settings: ServerSettings) -> Path:
    """A lake that is made once under these settings, to be copied; it goes with the process."""
    made = TemporaryDirectory()
    atexit.register(made.cleanup)
    folder = Path(made.name) / "lake"
    with closing(Lake.open(str(folder), settings)) as lake:
        write_history(open_tenant(lake))
    return folder


def write_history(tenant: Tenant) -> None:
    """A lake with rows in every tier, revisions, a correction, a withdrawn run and an update_id."""
    upload(tenant, some_rows(9, known=0, value=0.0), "first")
    upload(tenant, some_rows(30, known=10, value=10.0), "second", known_time=from_micros(hour(10)))
    upload(tenant, some_rows(5, known=5, value=5.0), "wrong")
    correct(tenant, "second", 11.5, "before compaction")
    tenant.compact()
    tenant.withdraw_run(WithdrawRun(run_id="wrong", reason="bad weather"), changed_by=None)
    upload(tenant, some_rows(12, known=20, value=20.0, first=4), "third")
    upload(tenant, some_rows(3, known=3, value=3.0), "late arrival")


def correct(tenant: Tenant, run_id: str, value: float, update_id: str) -> dict[str, Any]:
    """Two corrections of a run in one batch: a value, and a retraction."""
    (series,) = tenant.list_series(ListSeries(name=SERIES[0]))
    first, second = (from_micros(hour(number)) for number in (4, 5))
    updates = [
        {"run_id": run_id, "series_id": series["series_id"], "valid_time": first, "value": value, "tags": ["seen"]},
        {
            "run_id": run_id,
            "series_id": series["series_id"],
            "valid_time": second,
            "retracted": True,
            "changed_by": "me",
        },
    ]
    message = UpdateValues.model_validate({"updates": updates, "update_id": update_id})
    return tenant.update_values(message, changed_by=None)


def correct_by_table(tenant: Tenant) -> dict[str, Any]:
    """The same of the third run as a table, whose columns say everything of both rows."""
    rows = pa.table(
        {
            "series_key": [SERIES[0]] * 2,
            "run_id": ["third"] * 2,
            "valid_time": pa.array([hour(4), hour(5)], MICROS),
            "value": [99.0, 23.0],
            "tags": pa.array([["seen"], None], pa.list_(pa.string())),
            "retracted": [False, True],
            "changed_by": pa.array([None, "me"], pa.string()),
        }
    )
    table = tenant.begin_corrections(CorrectCommand(update_id="fix"), rows.schema, None)
    for batch in rows.to_batches():
        table.add(batch)
    return table.commit(rows.num_rows)


def operations() -> list[Operation]:
    """All of them."""
    model = Model()
    skipped = {row.revision for row in model.upload("skipping", SKIPPING[:6], 0)}
    corrected = [
        Stored(SERIES[0], hour(4), None, hour(20), 0, "third", float_bits(99.0), None, ("seen",), None, False),
        Stored(SERIES[0], hour(5), None, hour(20), 0, "third", float_bits(23.0), None, None, "me", True),
    ]
    return [
        Operation(
            "first upload of a lake",
            lambda tenant: upload(tenant, SMALL, "small", known_time=from_micros(hour(30))),
            model.upload("small", SMALL, hour(30)),
            answers_again=True,
            from_nothing=True,
        ),
        Operation(
            "small upload",
            lambda tenant: upload(tenant, SMALL, "small", known_time=from_micros(hour(30))),
            model.upload("small", SMALL, hour(30)),
            answers_again=True,
        ),
        Operation(
            "bulk upload",
            lambda tenant: upload(tenant, BULK, "bulk", batch_rows=10),
            model.upload("bulk", BULK, hour(40)),
            answers_again=True,
        ),
        Operation(
            "upload, skip_unchanged",
            lambda tenant: upload(tenant, SKIPPING, "skipping", skip_unchanged=True),
            [row for row in model.upload("skipping", SKIPPING, 0) if row.revision not in skipped],
            answers_again=True,
        ),
        Operation("correction", lambda tenant: correct(tenant, "third", 99.0, "fix"), corrected, answers_again=True),
        Operation("corrections as a table", correct_by_table, corrected, answers_again=True),
        Operation(
            "withdrawal",
            lambda tenant: tenant.withdraw_run(WithdrawRun(run_id="third", reason="gone"), changed_by=None),
            [
                row._replace(retracted=True, annotation="gone")
                for row in model.upload("third", some_rows(12, known=20, value=20.0, first=4), 0)
            ],
        ),
        Operation(
            "restoration",
            lambda tenant: tenant.restore_run(RestoreRun(run_id="wrong"), changed_by=None),
            model.upload("wrong", some_rows(5, known=5, value=5.0), 0),
            holds=lambda tenant: tenant.get_run(GetRun(run_id="wrong"))["withdrawn"] is None,
        ),
        Operation(
            "series creation",
            lambda tenant: tenant.create_series(
                CreateSeries(name="made", unit="MW", labels={"k": "v"}), created_by=None
            ),
            holds=lambda tenant: _units(tenant)["made"] == ["MW"],
        ),
        Operation(
            "series change",
            lambda tenant: tenant.create_series(CreateSeries(name=SERIES[0], unit="MW"), created_by=None),
            holds=lambda tenant: _units(tenant)[SERIES[0]] == ["MW"],
        ),
        Operation("records", lambda tenant: tenant.records.write(), prepare=_leave_records),
        Operation("gathering", translating_errors()(lambda tenant: _mover(tenant).gather(3)), prepare=_write_small),
        Operation(
            "move into the buckets", translating_errors()(lambda tenant: _mover(tenant).move()), prepare=_write_small
        ),
        Operation("compaction", lambda tenant: tenant.compact()),
        Operation("checkpoint", lambda tenant: tenant.maintain(), prepare=lambda tenant: tenant.compact()),
        Operation(
            "vacuum and log clean-up",
            lambda tenant: tenant.maintain(),
            prepare=_leave_dead_files,
            settings={"retention_hours": 0, "log_retention_hours": 0},
        ),
    ]


def _units(tenant: Tenant) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for series in tenant.list_series(ListSeries()):
        found.setdefault(series["name"], []).append(series["unit"])
    return found


def _mover(tenant: Tenant) -> Mover:
    return Mover(tenant.values, tenant.lane, bucket_digits=tenant.bucket_digits, input_rows=1000)


def _write_small(tenant: Tenant) -> None:
    """Uploads and corrections of one another that lie together, in a file each."""
    for number in range(3):
        upload(tenant, some_rows(5, known=60 + number, value=60.0), f"small-{number}")
    correct(tenant, "third", 99.0, "fix")


def _leave_records(tenant: Tenant) -> None:
    """Records that are in the values log alone, as a server leaves them that is killed."""
    tenant.records.write()
    tenant.records.close()
    upload(tenant, some_rows(6, known=60, value=60.0), "later")
    correct(tenant, "third", 99.0, "fix")


def _leave_dead_files(tenant: Tenant) -> None:
    tenant.maintain()
    upload(tenant, some_rows(6, known=60, value=60.0), "later")
    tenant.compact()
    tenant.values.checkpoint()
    upload(tenant, some_rows(6, known=61, value=61.0), "latest")


def copy_lake(source: Path, target: Path) -> None:
    """A copy of a lake's folder, times of change included."""
    if source.exists():
        shutil.copytree(source, target)
