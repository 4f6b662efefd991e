"""Series whose name or unit is set right: the id and the values stay, and everybody sees it at once."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.storage.lakes import Sent, hour, open_tenant, read_table, tiny_settings, upload, upload_table
from timedb.contract.errors import Busy, Conflict, InvalidRequest, NotFound
from timedb.contract.identity import OPEN_TENANT_ID, series_id_for
from timedb.contract.wire import CreateSeries, ListSeries, UpdateSeries, UploadCommand, parse_object
from timedb.storage import Lake, Tenant


def create(tenant: Tenant, name: str, **fields: Any) -> str:
    """Create a series: its id."""
    made = tenant.create_series(parse_object(CreateSeries, {"name": name, **fields}), created_by=None)
    return str(made["series_id"])


def update(tenant: Tenant, series_id: str, **fields: Any) -> dict[str, Any]:
    """Change a series."""
    return tenant.update_series(parse_object(UpdateSeries, {"series_id": series_id, **fields}))


def rows(name: str, *values: float, known: int = 0) -> list[Sent]:
    """A value an hour."""
    return [Sent(name, hour(number), None, hour(known), value) for number, value in enumerate(values)]


def values_of(tenant: Tenant, name: str, **fields: Any) -> list[float]:
    """The flat values of the series of a name."""
    table = read_table(tenant, series_keys=[name], columns=["valid_time", "value"], ordered=True, **fields)
    values: list[float] = table["value"].to_pylist()
    return values


def test_a_renamed_series_keeps_its_id_its_values_and_its_unit(tenant: Tenant) -> None:
    series_id = create(tenant, "wnid", unit="MW", description="power")
    upload(tenant, rows("wnid", 1.0, 2.0), "first")
    told = update(tenant, series_id, name="wind")
    assert told == {
        "series_id": series_id,
        "name": "wind",
        "labels": {},
        "unit": "MW",
        "description": "power",
        "retired": False,
    }
    upload(tenant, rows("wind", 3.0, known=1), "second")
    assert values_of(tenant, "wind") == [3.0, 2.0]
    for work in (
        lambda: values_of(tenant, "wnid"),
        lambda: upload(tenant, rows("wnid", 1.0), "third", create_series=False),
    ):
        with pytest.raises(NotFound, match="there is no series 'wnid'"):
            work()
    assert create(tenant, "wind") == series_id


def test_who_takes_the_old_name_gets_another_series(tenant: Tenant) -> None:
    first = create(tenant, "wind")
    upload(tenant, rows("wind", 1.0), "first")
    update(tenant, first, name="wind-2024")
    second = upload(tenant, rows("wind", 2.0), "second")["series_ids"]["wind"]
    assert second == create(tenant, "wind") != first
    update(tenant, second, name="wind-2025")
    third = create(tenant, "wind")
    assert [first, second, third] == [series_id_for(OPEN_TENANT_ID, "wind", None, turn) for turn in range(3)]
    assert [values_of(tenant, name) for name in ("wind-2024", "wind-2025", "wind")] == [[1.0], [2.0], []]
    update(tenant, third, name="wind-2026")
    update(tenant, first, name="wind")
    assert create(tenant, "wind") == first, "back again"
    assert values_of(tenant, "wind") == [1.0]


def test_a_name_that_is_taken_is_a_conflict(tenant: Tenant) -> None:
    labels = {"site": "a"}
    one, other = create(tenant, "wind", labels=labels), create(tenant, "sun", labels=labels)
    create(tenant, "wind", labels={"site": "b"})
    with pytest.raises(Conflict, match=f"^name: 'wind' is the name of the series {one} with the same labels$"):
        update(tenant, other, name="wind")
    update(tenant, one, retired=True)
    with pytest.raises(Conflict, match="with the same labels, which is retired"):
        update(tenant, other, name="wind")
    assert update(tenant, create(tenant, "moon", labels={"site": "c"}), name="wind")["labels"] == {"site": "c"}
    assert sorted(one["name"] for one in tenant.list_series(ListSeries())) == ["sun", "wind", "wind"]


def test_every_server_of_a_lake_sees_it_at_once(tenant: Tenant, lake_dir: Path) -> None:
    series_id = create(tenant, "wnid", unit="kW")
    with closing(Lake.open(str(lake_dir), tiny_settings())) as other_lake:
        other = open_tenant(other_lake)
        upload(other, rows("wnid", 1.0), "first")
        update(tenant, series_id, name="wind", unit="MW", unit_change="declare")
        assert values_of(other, "wind", unit="kW") == [1000.0]
        upload(other, rows("wind", 500.0, known=1), "second", unit="kW")
        assert values_of(tenant, "wind") == [0.5]
        with pytest.raises(NotFound):
            values_of(other, "wnid")
        assert upload(other, rows("wnid", 1.0), "third")["series_ids"]["wnid"] != series_id


def test_history_is_read_under_the_new_name(tenant: Tenant) -> None:
    series_id = create(tenant, "wnid")
    stamp = upload(tenant, rows("wnid", 1.0), "first")["change_time"]
    upload(tenant, rows("wnid", 2.0, known=1), "second")
    token = read_table(tenant, series_ids=[series_id], as_of=stamp).schema.metadata[b"token"].decode()
    update(tenant, series_id, name="wind")
    assert values_of(tenant, "wind", as_of=stamp) == [1.0]
    assert values_of(tenant, "wind", token=token) == [1.0]


def test_a_retry_under_the_new_name_is_one_and_under_the_old_one_is_not(tenant: Tenant) -> None:
    series_id = create(tenant, "wnid")
    first = upload(tenant, rows("wnid", 1.0), "run")
    update(tenant, series_id, name="wind")
    again = upload(tenant, rows("wind", 1.0), "run")
    assert again["change_time"] == first["change_time"]
    with pytest.raises(Conflict, match="run_id"):
        upload(tenant, rows("wnid", 1.0), "run")
    assert [one["name"] for one in tenant.list_series(ListSeries())] == ["wind"]


@pytest.mark.parametrize("count", [2, 40], ids=["in memory", "in chunks"])
def test_a_name_that_is_given_while_an_upload_is_under_way(tenant: Tenant, count: int) -> None:
    series_id = create(tenant, "wnid")
    table = upload_table(rows("wind", *[1.0] * count))
    command = parse_object(UploadCommand, {"run_id": "run"})
    under_way = tenant.begin_upload(command, table.schema, created_by=None)
    for batch in table.to_batches(max_chunksize=16):
        under_way.add(batch)
    if count == 2:  # its series are found out when it ends, so they are found by the new name
        update(tenant, series_id, name="wind")
        assert under_way.commit(count)["series_ids"] == {"wind": series_id}
        return
    update(tenant, series_id, name="wind")
    with pytest.raises(Busy, match="a series has just been renamed to or from 'wind'; retry"):
        under_way.commit(count)
    assert upload(tenant, table, "run")["series_ids"] == {"wind": series_id}
    assert values_of(tenant, "wind") == [1.0] * count


def test_a_limited_key_renames_what_it_sees_and_nothing_else(tenant: Tenant) -> None:
    mine, theirs = create(tenant, "wnid", labels={"site": "a"}), create(tenant, "wind", labels={"site": "b"})
    limited = tenant.limited_to({"site": "a"}, "ann@example.com")
    with pytest.raises(NotFound, match=f"there is no series '{theirs}'"):
        update(limited, theirs, name="mine")
    assert update(limited, mine, name="wind")["series_id"] == mine
    assert [one["series_id"] for one in limited.list_series(ListSeries(name="wind"))] == [mine]
    assert upload(limited, rows("wind", 1.0), "run")["series_ids"] == {"wind": mine}


def test_a_unit_is_declared_and_the_numbers_stay(tenant: Tenant) -> None:
    upload(tenant, rows("power", 1500.0), "run")
    series_id = upload(tenant, rows("power", 1500.0), "run")["series_ids"]["power"]
    assert update(tenant, series_id, unit="kW", unit_change="declare")["unit"] == "kW"
    assert (values_of(tenant, "power"), values_of(tenant, "power", unit="MW")) == ([1500.0], [1.5])
    with pytest.raises(Conflict, match=r"^unit: 'MW', but the series 'power' has 'kW'"):
        create(tenant, "power", unit="MW")
    update(tenant, series_id, unit="MW", unit_change="declare")
    assert (values_of(tenant, "power"), values_of(tenant, "power", unit="kW")) == ([1500.0], [1.5e6])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unit": "kW"}, r"^unit_change: has to say what another unit does to the values; 'declare' leaves"),
        (
            {"unit": "kW", "unit_change": "guess"},
            r"^unit_change: 'guess' is neither 'declare' nor 'convert'; ",
        ),
        ({"unit": "kW", "unit_change": "convert", "name": "x"}, r"^unit_change: .* change of its own; leave name to"),
        ({"unit_change": "convert"}, r"^unit_change: there is no unit beside it"),
        ({"unit": "kw", "unit_change": "convert"}, r"^unit: 'kw' is not a unit; did you mean 'kW'\?"),
        ({"unit": "EUR", "unit_change": "convert"}, r"^unit: 'MW' and 'EUR' are units of different kinds$"),
        ({"unit": "dB", "unit_change": "convert"}, r"^unit: .*'dB'.* is not a unit that can be converted; 'MW'"),
        ({"unit_change": "declare"}, r"^unit_change: there is no unit beside it"),
        ({"unit": "kw", "unit_change": "declare"}, r"^unit: 'kw' is not a unit; did you mean 'kW'\?"),
        ({"unit": "EUR/Mwh", "unit_change": "declare"}, r"^unit: 'EUR/Mwh' is not a unit; did you mean 'EUR/MWh'\?"),
        ({"unit": "happiness", "unit_change": "declare"}, r"^unit: 'happiness' is not a unit; units are such as MW"),
        ({"unit": None}, "^unit: only a description can be cleared"),
        ({"name": None}, "^name: only a description can be cleared"),
        ({"retired": None}, "^retired: only a description can be cleared"),
        ({"name": " "}, "^name: ' '"),
        ({"labels": {"site": "b"}}, "^labels: unknown field"),
    ],
)
def test_changes_that_cannot_be(tenant: Tenant, fields: dict[str, Any], said: str) -> None:
    series_id = create(tenant, "power", unit="MW")
    before = tenant.list_series(ListSeries())
    with pytest.raises(InvalidRequest, match=said):
        update(tenant, series_id, **fields)
    assert tenant.list_series(ListSeries()) == before


@pytest.mark.parametrize("unit", ["happiness", "Mwh", "", "2*W", "p.u.", "nan", "x" * 65])
def test_no_series_is_made_of_what_is_not_a_unit(tenant: Tenant, unit: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^unit: "):
        create(tenant, "power", unit=unit)
    assert tenant.list_series(ListSeries()) == []


@pytest.mark.parametrize("unit", ["EUR/MWh", "öre/kWh", "dB", "°C", "m³/s", "gCO2eq/kWh", "USD/MMBtu", "%", "MWh/h"])
def test_units_that_people_have(tenant: Tenant, unit: str) -> None:
    if unit.startswith("öre"):
        unit = unit.replace("öre", "SEK")
    create(tenant, "power", unit=unit)
    assert tenant.list_series(ListSeries())[0]["unit"] == unit


def test_a_read_in_a_unit_that_is_none_names_what_may_have_been_meant(tenant: Tenant) -> None:
    create(tenant, "price", unit="EUR/MWh")
    with pytest.raises(InvalidRequest, match=r"^unit: 'Kwh' .* cannot be converted to .*; did you mean 'EUR/kWh'\?"):
        values_of(tenant, "price", unit="EUR/Kwh")
