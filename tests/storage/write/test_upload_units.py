"""Uploads that state a unit: what is stored, what is refused, and that a retry stays a retry."""

from __future__ import annotations

import math
import threading
from typing import Any

import pyarrow as pa
import pytest

from tests.storage.lakes import Sent, hour, read_table, upload, upload_table
from timedb.contract.errors import Busy, Conflict, InvalidRequest, TimeDBError
from timedb.contract.times import now
from timedb.contract.wire import CreateSeries, GetRun, ListSeries, UploadCommand, parse_object
from timedb.storage import Tenant
from timedb.storage.catalog.catalog import Series, SeriesNeeds, StoredCatalog


def series(tenant: Tenant, name: str, unit: str | None = None) -> str:
    """Create a series: its id."""
    return str(tenant.create_series(CreateSeries(name=name, unit=unit), created_by=None)["series_id"])


def unit_of(tenant: Tenant, name: str) -> str:
    """The unit that a series has."""
    return str(tenant.list_series(ListSeries(name=name))[0]["unit"])


def values_of(tenant: Tenant, name: str, **fields: Any) -> list[float | None]:
    """The flat values of a series in the order of their times."""
    table = read_table(tenant, series_keys=[name], columns=["valid_time", "value"], ordered=True, **fields)
    values: list[float | None] = table["value"].to_pylist()
    return values


def rows(name: str, *values: float | None, known: int = 0) -> list[Sent]:
    """A value an hour."""
    return [Sent(name, hour(number), None, hour(known), value) for number, value in enumerate(values)]


def test_values_are_stored_in_the_unit_of_their_series(tenant: Tenant) -> None:
    series(tenant, "power", "kW")
    price = series(tenant, "price", "EUR/kWh")
    upload(tenant, rows("power", 1.5, None, float("nan"), -2.0), unit="MW")
    upload(tenant, upload_table(rows("price", 45.3)).set_column(0, "series_id", pa.array([price])), unit="EUR/MWh")
    found = values_of(tenant, "power")
    assert found[:2] + found[3:] == [1500.0, None, -2000.0]
    assert math.isnan(found[2] or 0.0)
    assert values_of(tenant, "power", unit="MW")[0] == 1.5
    assert values_of(tenant, "price") == [0.0453]


def test_one_upload_into_series_of_several_units(tenant: Tenant) -> None:
    for name, unit in (("watts", "W"), ("kilowatts", "kW"), ("same", "MW")):
        series(tenant, name, unit)
    upload(tenant, [Sent(name, hour(0), None, None, 2.0) for name in ("same", "watts", "new", "kilowatts")], unit="MW")
    found = {name: values_of(tenant, name) for name in ("watts", "kilowatts", "same", "new")}
    assert found == {"watts": [2e6], "kilowatts": [2000.0], "same": [2.0], "new": [2.0]}


def test_a_series_that_the_upload_makes_has_its_unit_for_good(tenant: Tenant) -> None:
    upload(tenant, rows("made", 1.0), unit="MW")
    upload(tenant, rows("plain", 1.0))
    assert unit_of(tenant, "made") == "MW"
    assert unit_of(tenant, "plain") == "dimensionless"
    series(tenant, "made")
    with pytest.raises(Conflict, match="unit: 'kW', but the series 'made' has 'MW'"):
        series(tenant, "made", "kW")
    series(tenant, "plain", "kW")
    assert (unit_of(tenant, "made"), unit_of(tenant, "plain")) == ("MW", "kW")


def test_a_unit_that_nobody_knows_is_refused_and_nothing_is_made(tenant: Tenant) -> None:
    for unit, said in (("happiness", "is not a unit; units are such as"), ("Mwh", "not a unit; did you mean 'MWh'")):
        for run_id in (None, "run"):
            with pytest.raises(InvalidRequest, match=f"^unit: {unit!r} {said}|{said}"):
                upload(tenant, rows("mood", 1.0), run_id, unit=unit)
    assert tenant.list_series(ListSeries()) == []


def test_a_unit_that_was_taken_once_fits_itself_only(tenant: Tenant) -> None:
    # Before units were looked at any text was one.
    catalog = tenant.catalog
    assert isinstance(catalog, StoredCatalog)
    mood = catalog.id_for("mood", "{}", catalog.known())
    catalog.ensure([SeriesNeeds([Series(mood, "mood", "{}", "happiness", None, now(), None)])])
    upload(tenant, rows("mood", 1.0), unit="happiness")
    upload(tenant, rows("mood", 2.0, known=1), unit="happiness")
    assert values_of(tenant, "mood") == [2.0]
    with pytest.raises(InvalidRequest, match="unit: 'joy' is not a unit that can be converted; 'joy' cannot be"):
        upload(tenant, rows("mood", 2.0), unit="joy")


@pytest.mark.parametrize("run_id", [None, "run"])
@pytest.mark.parametrize("count", [2, 14, 40], ids=["in memory", "bulk", "in chunks"])
def test_a_unit_that_does_not_fit_writes_nothing(tenant: Tenant, count: int, run_id: str | None) -> None:
    upload(tenant, rows("auto", 7.0))
    with pytest.raises(InvalidRequest, match=r"^unit: 'MW' and 'dimensionless' are units of .* \(series 'auto'\)"):
        upload(tenant, [*rows("other", *[1.0] * count), *rows("auto", 1.0, known=1)], run_id, unit="MW")
    assert values_of(tenant, "auto") == [7.0]
    assert [one["name"] for one in tenant.list_series(ListSeries())] == ["auto"]
    upload(tenant, rows("auto", 50.0, known=1), run_id, unit="percent")
    assert values_of(tenant, "auto") == [0.5]


@pytest.mark.parametrize("count", [2, 14, 40], ids=["in memory", "bulk", "in chunks"])
def test_a_retry_is_one_whatever_the_unit_of_the_series_has_become(tenant: Tenant, count: int) -> None:
    upload(tenant, rows("share", 1.0))
    sent = rows("share", *map(float, range(count)), known=1)
    receipt = upload(tenant, sent, "run", unit="percent")
    series(tenant, "share", "MW")  # it had been made by an upload, so that its unit could still be set
    before = values_of(tenant, "share")
    assert upload(tenant, sent[::-1], "run", unit="percent") == receipt
    assert values_of(tenant, "share") == before
    with pytest.raises(Conflict, match="with other content"):
        upload(tenant, sent, "run", unit="dimensionless")
    with pytest.raises(Conflict, match="with other content"):
        upload(tenant, sent, "run")
    with pytest.raises(InvalidRequest, match="'percent' and 'MW' are units of different kinds"):
        upload(tenant, sent, "another run", unit="percent")
    assert tenant.get_run(GetRun(run_id="run"))["rows"] == count


def test_a_run_that_was_refused_may_come_again_under_its_name(tenant: Tenant) -> None:
    upload(tenant, rows("auto", 7.0))
    with pytest.raises(InvalidRequest):
        upload(tenant, rows("auto", 1.0, known=1), "run", unit="MW")
    series(tenant, "auto", "kW")
    upload(tenant, rows("auto", 1.0, known=1), "run", unit="MW")
    assert values_of(tenant, "auto") == [1000.0]


def test_unchanged_values_are_found_by_what_is_stored(tenant: Tenant) -> None:
    series(tenant, "power", "kW")
    upload(tenant, rows("power", 1.5, 2.5), unit="MW")
    again = [
        upload(tenant, rows("power", 1500.0, 2600.0, known=1), skip_unchanged=True),
        upload(tenant, rows("power", 1.5, 2.6, known=2), skip_unchanged=True, unit="MW"),
        upload(tenant, rows("power", 1500000.0, 1.0, known=3), skip_unchanged=True, unit="W"),
    ]
    assert [(receipt["rows"], receipt["skipped"]) for receipt in again] == [(1, 1), (0, 2), (1, 1)]
    assert values_of(tenant, "power") == [1500.0, 0.001]


def test_a_series_that_gets_a_unit_while_an_upload_is_under_way(tenant: Tenant) -> None:
    table = upload_table(rows("late", *[1.0] * 20))
    command = parse_object(UploadCommand, {"run_id": "run", "unit": "MW"})
    under_way = tenant.begin_upload(command, table.schema, created_by=None)
    for batch in table.to_batches(max_chunksize=16):  # the first 16 rows are written out, as new in megawatts
        under_way.add(batch)
    series(tenant, "late", "kW")
    with pytest.raises(Busy, match="unit: the unit of the series 'late' has just changed; retry"):
        under_way.commit(20)
    assert values_of(tenant, "late") == []
    upload(tenant, table, "run", unit="MW")
    assert values_of(tenant, "late") == [1000.0] * 20


def test_uploads_in_several_units_race_for_a_new_series(tenant: Tenant) -> None:
    units = {"W": 2e6, "kW": 2000.0, "MW": 2.0, "GW": 0.002}
    start = threading.Barrier(len(units))
    faults: list[TimeDBError] = []

    def send(unit: str, value: float) -> None:
        start.wait()
        for number in range(5):
            for _ in range(5):
                try:
                    upload(tenant, rows(f"raced {number}", value), f"{unit} {number}", unit=unit)
                    break
                except Busy as busy:
                    faults.append(busy)
                except TimeDBError as fault:
                    faults.append(fault)
                    raise

    threads = [threading.Thread(target=send, args=each) for each in units.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(fault, Busy) for fault in faults)
    for number in range(5):
        table = read_table(tenant, view="overlapping", series_keys=[f"raced {number}"], unit="MW")
        assert table["value"].to_pylist() == pytest.approx([2.0] * len(units), rel=1e-15)
