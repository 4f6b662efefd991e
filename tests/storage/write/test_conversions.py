"""The stored numbers of a series are converted to another unit: all of them, once, and none beside them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import timedb as td
from tests.storage.catalog.test_series_changes import create, rows, update, values_of
from tests.storage.lakes import (
    Sent,
    hour,
    open_tenant,
    read_table,
    some_rows,
    tenant_folder,
    tiny_settings,
    upload,
    upload_table,
    while_held,
)
from timedb.contract.errors import Busy, Conflict, InvalidRequest, TooLarge
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.times import format_time, from_micros
from timedb.contract.wire import (
    FollowTicket,
    LookupCommand,
    RestoreRun,
    UpdateValues,
    UploadCommand,
    WithdrawRun,
    parse_object,
)
from timedb.storage import Lake, Tenant
from timedb.storage.tables.commit_marks import UNITS

AUDIT = ["valid_time", "known_time", "change_time", "run_id", "annotation", "changed_by", "retracted", "value"]


def text(number: int) -> str:
    """An hour as corrections say it."""
    return format_time(from_micros(hour(number)))


def convert(tenant: Tenant, series_id: str, unit: str) -> dict[str, Any]:
    """Convert a series."""
    return update(tenant, series_id, unit=unit, unit_change="convert")


def history(tenant: Tenant, series_id: str) -> list[dict[str, Any]]:
    """Every version of every row of a series."""
    table = read_table(
        tenant, series_ids=[series_id], view="overlapping", all_versions=True, columns=AUDIT, ordered=True
    )
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def with_a_history(tenant: Tenant) -> tuple[str, str]:
    """Series ``power`` of MW with runs, corrections and a withdrawal among those of others; and one beside it."""
    power, other = create(tenant, "power", unit="MW"), create(tenant, "a", unit="MW")
    for run in range(4):
        sent = some_rows(20, series=("a", "east"), known=run)
        upload(tenant, [*sent, *rows("power", *(float(run + number) for number in range(9)), known=run)], f"run-{run}")
        if run == 1:
            tenant.compact()
    updates = [{"series_id": power, "valid_time": text(1), "value": 50.5, "annotation": "meter"}]
    tenant.update_values(parse_object(UpdateValues, {"updates": updates}), changed_by="ann@example.com")
    tenant.withdraw_run(WithdrawRun(run_id="run-2"), changed_by=None)
    odd = [None, math.nan, math.inf, -0.0]
    upload(tenant, [Sent("power", hour(20 + place), None, hour(9), value) for place, value in enumerate(odd)], "odd")
    return power, other


def scaled(row: dict[str, Any], factor: float) -> dict[str, Any]:
    return {**row, "value": None if row["value"] is None else row["value"] * factor}


@pytest.mark.parametrize("settled", [False, True], ids=["fresh", "compacted"])
def test_every_version_is_converted_and_nothing_else_changes(tenant: Tenant, lake_dir: Path, settled: bool) -> None:
    power, other = with_a_history(tenant)
    if settled:
        tenant.compact()
    before, others = history(tenant, power), history(tenant, other)
    count = tenant.status()["rows"]
    assert convert(tenant, power, "kW")["unit"] == "kW"
    assert repr(history(tenant, power)) == repr([scaled(row, 1000.0) for row in before])
    assert history(tenant, other) == others
    assert tenant.status()["rows"] == count
    assert read_table(tenant, series_ids=[power], columns=["series_unit"])["series_unit"].unique().to_pylist() == ["kW"]
    direct = td.scan_lake(lake_dir, series_ids=[power], columns=["value", "series_unit"]).collect()
    flat = read_table(tenant, series_ids=[power], columns=["value"])
    assert sorted(map(repr, direct["value"])) == sorted(map(repr, flat["value"].to_pylist()))
    tenant.restore_run(RestoreRun(run_id="run-2"), changed_by=None)
    tenant.compact()
    assert values_of(tenant, "power")[:4] == [3000.0, 50500.0, 5000.0, 6000.0]
    found = [finding for finding in Lake.doctor(str(lake_dir)) if not finding["notice"]]
    assert found == []


def test_an_answer_as_of_before_is_the_same_quantity_in_the_new_unit(tenant: Tenant) -> None:
    power, _ = with_a_history(tenant)
    stamp = history(tenant, power)[0]["change_time"]
    cut_offs: list[dict[str, Any]] = [{"as_of": stamp}, {"end_known": text(2)}, {"view": "first"}]
    cut_offs.append({"corrections": "by_cutoff", "end_known": text(5)})
    before = [read_table(tenant, series_ids=[power], columns=["value"], ordered=True, **each) for each in cut_offs]
    convert(tenant, power, "kW")
    for each, old in zip(cut_offs, before, strict=True):
        for unit, factor in ((None, 1000.0), ("MW", 1.0)):
            asked = {"series_ids": [power], "columns": ["value"], "ordered": True, "unit": unit, **each}
            now = read_table(tenant, **asked)["value"].to_pylist()
            expected = [value if value is None else value * factor for value in old["value"].to_pylist()]
            assert now == pytest.approx(expected, nan_ok=True), each


def test_an_offset_counts_and_there_and_back_is_what_it_was(tenant: Tenant) -> None:
    air = create(tenant, "air", unit="degC")
    upload(tenant, rows("air", -273.15, 0.0, 36.6), "run")
    convert(tenant, air, "K")
    assert values_of(tenant, "air") == [0.0, 273.15, 309.75]
    convert(tenant, air, "degC")
    assert values_of(tenant, "air") == pytest.approx([-273.15, 0.0, 36.6])


def test_again_is_nothing_and_another_spelling_is_no_other_number(tenant: Tenant) -> None:
    power = create(tenant, "power", unit="MW")
    upload(tenant, rows("power", 0.1), "run")
    convert(tenant, power, "kW")
    version = tenant.status()["table_version"]
    assert convert(tenant, power, "kW")["unit"] == "kW"
    assert tenant.status()["table_version"] == version
    files = set(tenant.values.snapshot().files)
    assert convert(tenant, power, "kilowatt")["unit"] == "kilowatt"
    assert set(tenant.values.snapshot().files) == files
    assert values_of(tenant, "power") == [100.0]


def test_a_series_without_values_has_another_unit_then(tenant: Tenant) -> None:
    power = create(tenant, "power", unit="MW")
    convert(tenant, power, "kW")
    upload(tenant, rows("power", 1.0), "run", unit="MW")
    assert values_of(tenant, "power") == [1000.0]


def test_what_cannot_be_right_is_refused_and_changes_nothing(lake_dir: Path) -> None:
    settings = tiny_settings(max_converted_rows=10)
    with closing(Lake.open(str(lake_dir), settings)) as lake:
        tenant = open_tenant(lake)
        power = create(tenant, "power", unit="MW")
        unsaid = upload(tenant, rows("unsaid", 1.0), "first")["series_ids"]["unsaid"]
        upload(tenant, rows("power", 1e305), "second")
        with pytest.raises(InvalidRequest, match=r"^unit: a value of the series 'power' is too large a number in 'W'"):
            convert(tenant, power, "W")
        with pytest.raises(InvalidRequest, match=r"^unit: nobody has said of which unit the values of 'unsaid' are"):
            convert(tenant, unsaid, "percent")
        upload(tenant, rows("power", *[1.0] * 20, known=1), "third")
        with pytest.raises(TooLarge, match=r"^unit: .* 2\d rows, more than the 10 .*TIMEDB_MAX_CONVERTED_ROWS"):
            convert(tenant, power, "kW")
        assert values_of(tenant, "power")[:2] == [1.0, 1.0]
        assert tenant.values.snapshot().transactions.get(UNITS, 0) == 0
        data = {path for path in tenant_folder(lake_dir).glob("values/**/*.parquet") if "_delta_log" not in str(path)}
        assert len(data) == len(tenant.values.snapshot().files)


# What comes in meanwhile.


@pytest.mark.parametrize("count", [2, 40], ids=["in memory", "in chunks"])
@pytest.mark.parametrize("unit", [None, "GW"])
def test_an_upload_that_was_under_way_is_not_mixed_in(tenant: Tenant, count: int, unit: str | None) -> None:
    power = create(tenant, "power", unit="MW")
    upload(tenant, rows("power", *[1.0] * count), "before")
    table = upload_table(rows("power", *[2.0] * count, known=1))
    stated: dict[str, Any] = {} if unit is None else {"unit": unit}
    command = parse_object(UploadCommand, {"run_id": "run", **stated})
    under_way = tenant.begin_upload(command, table.schema, created_by=None)
    for batch in table.to_batches(max_chunksize=16):
        under_way.add(batch)
    convert(tenant, power, "kW")
    if count == 2:  # its series are found out when it ends
        under_way.commit(count)
        expected = 2.0 if unit is None else 2e6
    else:
        said = "from 'MW' to 'kW' while these values came in" if unit is None else "has just changed; retry"
        with pytest.raises(Conflict if unit is None else Busy, match=said):
            under_way.commit(count)
        assert values_of(tenant, "power") == [1000.0] * count
        upload(tenant, table, "run", **stated)
        expected = 2.0 if unit is None else 2e6
    assert values_of(tenant, "power") == [expected] * count
    upload(tenant, rows("power", *[1.0] * count), "before")
    assert values_of(tenant, "power") == [expected] * count, "the retry of a run is answered and adds nothing"


@pytest.mark.parametrize("unit", [None, "GW"])
def test_a_small_upload_that_waits_behind_a_conversion_is_not_mixed_in(tenant: Tenant, unit: str | None) -> None:
    power = create(tenant, "power", unit="MW")
    upload(tenant, rows("power", 1.0), "before")
    stated: dict[str, Any] = {} if unit is None else {"unit": unit}
    late = upload_table(rows("power", 2.0, known=1))
    said = "from 'MW' to 'kW' while these values came in" if unit is None else "has just changed; retry"
    with pytest.raises(Conflict if unit is None else Busy, match=said):
        while_held(tenant, lambda: convert(tenant, power, "kW"), lambda: upload(tenant, late, "late", **stated))
    assert values_of(tenant, "power") == [1000.0]


def during(tenant: Tenant, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something done when a conversion has rewritten what there is, and has not had its turn."""
    replace_files = tenant.lane.replace_files
    done: list[bool] = []

    def first(write: Any) -> bool:
        if not done:
            done.append(True)
            work()
        return replace_files(write)

    monkeypatch.setattr(tenant.lane, "replace_files", first)


def test_what_is_committed_while_files_are_rewritten_is_converted_too(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    power, _ = with_a_history(tenant)

    def work() -> None:
        upload(tenant, rows("power", 7.0, known=30), "small")
        upload(tenant, rows("power", *[8.0] * 30, known=31), "large")
        updates = [{"series_id": power, "valid_time": text(2), "run_id": "large", "value": 9.0}]
        tenant.update_values(parse_object(UpdateValues, {"updates": updates}), changed_by=None)

    during(tenant, work, monkeypatch)
    convert(tenant, power, "kW")
    assert values_of(tenant, "power") == [8000.0, 8000.0, 9000.0, *[8000.0] * 27]


def test_files_that_are_compacted_meanwhile_are_converted_once(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    power, _ = with_a_history(tenant)
    before = history(tenant, power)
    during(tenant, tenant.compact, monkeypatch)
    convert(tenant, power, "kW")
    assert repr(history(tenant, power)) == repr([scaled(row, 1000.0) for row in before])


def test_two_at_once_are_one_after_the_other(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    power = create(tenant, "power", unit="MW")
    upload(tenant, rows("power", 1.0), "run")
    during(tenant, lambda: update(tenant, power, unit="GW", unit_change="declare"), monkeypatch)
    convert(tenant, power, "kW")
    assert values_of(tenant, "power") == [1e6]


def test_a_correction_that_was_asked_for_before_is_refused(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    power = create(tenant, "power", unit="MW")
    upload(tenant, rows("power", 1.0, 2.0), "run")
    submit = tenant.lane.submit
    done: list[bool] = []

    def first(write: Any) -> dict[str, Any]:
        if not done:
            done.append(True)
            convert(tenant, power, "kW")
        return submit(write)

    monkeypatch.setattr(tenant.lane, "submit", first)
    values = {"series_id": power, "valid_time": text(0), "value": 1.5}
    with pytest.raises(Conflict, match="from 'MW' to 'kW' while these values came in"):
        tenant.update_values(parse_object(UpdateValues, {"updates": [values]}), changed_by=None)
    done.clear()
    convert(tenant, power, "MW")
    note = {"series_id": power, "valid_time": text(0), "annotation": "seen"}
    told = tenant.update_values(parse_object(UpdateValues, {"updates": [note]}), changed_by=None)
    assert len(told["updated"]) == 1, "what says no number is of no unit"


def test_a_retry_of_corrections_says_what_can_still_be_told(tenant: Tenant) -> None:
    power = create(tenant, "power", unit="MW")
    upload(tenant, rows("power", 1.0, 2.0), "run")
    changed, same = ({"series_id": power, "valid_time": text(place), "value": 1.0} for place in (1, 0))
    for update_id, updates in (("one", [changed]), ("two", [same])):
        tenant.update_values(parse_object(UpdateValues, {"updates": updates, "update_id": update_id}), changed_by=None)
    convert(tenant, power, "kW")
    again = parse_object(UpdateValues, {"updates": [changed], "update_id": "one"})
    assert len(tenant.update_values(again, changed_by=None)["updated"]) == 1
    with pytest.raises(Conflict, match="can no longer be told"):
        tenant.update_values(parse_object(UpdateValues, {"updates": [same], "update_id": "two"}), changed_by=None)
    assert values_of(tenant, "power") == [1000.0, 1000.0]


def test_writers_that_say_their_unit_need_not_know_of_it(tenant: Tenant) -> None:
    power = create(tenant, "power", unit="MW")
    started, failed = threading.Barrier(4), list[BaseException]()

    def write(writer: int) -> None:
        started.wait()
        for number in range(12):
            sent = rows("power", 1000.0 * writer + number, known=100 * writer + number)
            while True:
                try:
                    upload(tenant, sent, f"{writer}-{number}", unit="kW")
                    break
                except Busy:  # the unit has just changed
                    continue
                except BaseException as error:
                    failed.append(error)
                    return

    writers = [threading.Thread(target=write, args=[writer]) for writer in range(3)]
    for each in writers:
        each.start()
    started.wait()
    for unit in ("W", "GW", "kW", "MW"):
        convert(tenant, power, unit)
    for each in writers:
        each.join()
    assert failed == []
    convert(tenant, power, "kW")
    found = sorted(row["value"] for row in history(tenant, power))
    assert found == pytest.approx([1000.0 * writer + number for writer in range(3) for number in range(12)])


# Answers that began before.


def test_an_answer_is_not_gone_on_with_in_another_unit(tenant: Tenant) -> None:
    power, other = with_a_history(tenant)
    page = read_table(tenant, series_ids=[power], limit=2)
    cursor, token = (page.schema.metadata[name].decode() for name in (b"cursor", b"token"))
    version = int(page.schema.metadata[b"table_version"])
    convert(tenant, power, "kW")
    asked: list[dict[str, Any]] = [{"limit": 2, "after": cursor}, {"table_version": version}]
    asked.append({"view": "changes", "since": token})
    for each in asked:
        field = next(reversed(each))
        with pytest.raises(InvalidRequest, match=rf"^{field}: .*'power'.* have been converted to 'kW' since"):
            read_table(tenant, series_ids=[power], **each)
        if field != "after":
            read_table(tenant, series_ids=[other], **each)
    with pytest.raises(InvalidRequest, match=r"^since: "):
        read_table(tenant, view="changes", since=token)
    follower = tenant.follow(parse_object(FollowTicket, {"series_ids": [power], "since": token}))
    with pytest.raises(InvalidRequest, match=r"^since: .*'power'.* have been converted"):
        follower.passage()
    follower.leave()
    now = read_table(tenant, series_ids=[power]).schema.metadata[b"token"].decode()
    upload(tenant, rows("power", 1.0, known=40), "late")
    assert read_table(tenant, series_ids=[power], view="changes", since=now)["value"].to_pylist() == [1.0]
    assert read_table(tenant, series_ids=[power], token=token).num_rows


# The two tables.


def test_whoever_comes_next_finishes_what_a_server_left(tenant: Tenant, lake_dir: Path, monkeypatch: Any) -> None:
    power, _ = with_a_history(tenant)
    expected = [scaled(row, 1000.0) for row in history(tenant, power)]

    def dies(values: object) -> None:
        raise Busy("killed")

    monkeypatch.setattr(tenant.catalog, "_follow", dies)
    with pytest.raises(Busy, match="killed"):
        convert(tenant, power, "kW")
    assert tenant.catalog.known().by_id[power].unit == "MW"
    with pytest.raises(td.Busy, match="about to follow"):
        td.scan_lake(lake_dir, series_ids=[power])
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other_lake:
        other = open_tenant(other_lake)
        lookup = pl.DataFrame({"series_id": [power], "valid_time": [hour(1)]})
        lookup = lookup.with_columns(pl.col("valid_time").cast(pl.Datetime("us", "UTC")))
        table = lookup.to_arrow(compat_level=pl.CompatLevel.oldest())
        other.begin_lookup(LookupCommand(), table.schema)
        assert repr(history(other, power)) == repr(expected)
        assert other.catalog.known().by_id[power].unit == "kW"
    assert repr(history(tenant, power)) == repr(expected)
    assert td.scan_lake(lake_dir, series_ids=[power], columns=["series_unit"]).collect()["series_unit"][0] == "kW"


def test_every_server_of_a_lake_converts_and_declares_in_one_order(tenant: Tenant, lake_dir: Path) -> None:
    power = create(tenant, "power", unit="MW")
    upload(tenant, rows("power", 1.0), "run")
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other_lake:
        other = open_tenant(other_lake)
        convert(tenant, power, "kW")
        assert values_of(other, "power", unit="MW") == [1.0]
        update(other, power, unit="MW", unit_change="declare")
        convert(tenant, power, "GW")
        for each in (tenant, other):
            assert values_of(each, "power") == [1.0]
            assert each.catalog.known().by_id[power].unit == "GW"
    assert tenant.tenant_id == OPEN_TENANT_ID


def test_a_backup_has_units_and_numbers_that_belong_together(tenant: Tenant, lake_dir: Path, tmp_path: Path) -> None:
    power, _ = with_a_history(tenant)
    convert(tenant, power, "kW")
    expected = history(tenant, power)
    Lake.backup(str(lake_dir), str(tmp_path / "backup"))
    Lake.restore(str(tmp_path / "backup"), str(tmp_path / "restored"))
    with closing(Lake.open(str(tmp_path / "restored"), tiny_settings())) as restored:
        assert repr(history(open_tenant(restored), power)) == repr(expected)
