"""Files uploaded by the client: once, whatever the number of times, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import timedb as td
from timedb.client import Client
from timedb.contract.wire import GetRun

ROWS = "t,v\n2025-01-01T00:00Z,1\n2025-01-01T01:00Z,2\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_text(ROWS)
    return path


def options(name: str, **more: Any) -> dict[str, Any]:
    return {"valid_time": "t", "value": "v", "series": name, **more}


def test_a_file_that_is_loaded_twice_adds_nothing(client: Client, name: str, file: Path, tmp_path: Path) -> None:
    first = client.upload_file(file, **options(name))
    assert (first.already_loaded, first.rows, first.series_made) == (False, 2, 1)
    version = first.receipt.table_version
    turned = tmp_path / "other-name.csv"
    turned.write_text("v,t\n2,2025-01-01T01:00Z\n1,2025-01-01T00:00+00:00\n")
    for path in (file, turned):  # the run as it would be stored is what counts
        again = client.upload_file(path, **options(name))
        assert (again.already_loaded, again.run_id, again.series_made) == (True, first.run_id, 0)
    assert client.read(series_keys=name, view="overlapping").height == 2
    others: list[dict[str, Any]] = [
        {"known_time": "2025-01-01T00:00Z"},
        {"workflow_id": "w"},
        {"unit": "MW"},
        {"run_params": {"a": 1}},
    ]
    for more in others:
        if "unit" in more:
            more |= {"series": f"{name}-unit"}
        other = client.upload_file(file, **options(name) | more)
        assert (other.already_loaded, other.run_id == first.run_id) == (False, False)
    assert other.receipt.table_version > version


def test_a_run_id_may_hold_the_file_s_name(client: Client, name: str, file: Path) -> None:
    done = client.upload_file(file, run_id=f"{name}/{{file}}", **options(name))
    assert done.run_id == f"{name}/load"
    file.write_text(ROWS.replace(",2\n", ",3\n"))
    with pytest.raises(td.Conflict):
        client.upload_file(file, run_id=f"{name}/{{file}}", **options(name))


def test_a_run_s_start_may_be_a_column(client: Client, name: str, file: Path) -> None:
    file.write_text("t,v,run\n2025-01-01T06:00Z,1,2025-01-01 00:00\n2025-01-01T07:00Z,2,2025-01-01 00:00\n")
    said = options(name, run_start_time="run", time_zone="UTC", known_time="2025-01-01T05:40:00Z")
    done = client.upload_file(file, **said)
    record = client.call("get_run", GetRun(run_id=done.run_id))
    assert record["run_start_time"] == "2025-01-01T00:00:00.000000+00:00"
    assert done.known_time == ["2025-01-01T05:40:00.000000+00:00"] * 2
    file.write_text("t,v,run\n2025-01-01T06:00Z,1,2025-01-01 00:00\n2025-01-01T07:00Z,2,2025-01-01 06:00\n")
    with pytest.raises(td.InvalidRequest, match="run_start_time: a run begins once, and column run says"):
        client.upload_file(file, **said)


def test_an_error_names_options_as_python_does(client: Client, name: str, file: Path) -> None:
    file.write_text("t;v\n01.02.2025;1,5\n")
    refusals: list[tuple[dict[str, Any], str]] = [
        ({}, r"time_format='%d.%m.%Y' or time_format='%m.%d.%Y'"),
        ({"time_format": "%d.%m.%Y"}, r"decimal=','"),
        ({"dezimal": ","}, "dezimal: there is no such option; did you mean decimal"),
        ({"recipe": "nyiso-price"}, "recipe: 'nyiso-price'.*did you mean nyiso-prices"),
    ]
    for said, reason in refusals:
        with pytest.raises(td.InvalidRequest, match=reason):
            client.upload_file(file, **options(name), **said)


def test_a_large_file_is_kept_on_disk_while_it_is_sent(
    client: Client, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timedb.layouts import spool

    monkeypatch.setattr(spool, "_IN_MEMORY_BYTES", 1000)
    path = tmp_path / "many.csv"
    path.write_text("t,v\n" + "".join(f"{1735689600 + 60 * row},{row}\n" for row in range(20_000)))
    counts: list[int] = []
    done = client.upload_file(path, time_format="unix-s", progress=counts.append, **options(name))
    assert (done.rows, counts[-1]) == (20_000, 20_000)
    assert client.read(series_keys=name)["value"].sum() == sum(range(20_000))


def test_counted_periods_are_as_many_as_their_local_day_has(client: Client, name: str, tmp_path: Path) -> None:
    path = tmp_path / "periods.csv"
    days = {"2023-03-26": 46, "2023-10-29": 50}
    path.write_text("t,sp,v\n" + "".join(f"{day},{sp},1\n" for day in days for sp in range(1, days[day] + 1)))
    layout = {"period_number": "sp", "period": "30min", "time_zone": "Europe/London", "known_after": "0h"}
    client.upload_file(path, **options(name, **layout))
    per_day = {"period": "P1D", "aggregate": "count", "time_zone": "Europe/London"}
    found = client.read(series_keys=name, resample=per_day, columns=["valid_time", "value"]).sort("valid_time")
    assert [(f"{start:%m-%dT%H:%M}", count) for start, count in found.rows()] == [
        ("03-26T00:00", 46.0),
        ("10-28T23:00", 50.0),
    ]


def test_when_a_run_began_is_not_when_it_became_known(client: Client, name: str, file: Path) -> None:
    times = {"run_start_time": "2025-01-01T00:00Z", "known_time": "2025-01-01T05:40Z"}
    done = client.upload_file(file, **options(name, **times))
    assert client.read(series_keys=name, end_known="2025-01-01T04:00Z").height == 0
    run = client.get_run(done.run_id)
    assert (run["run_start_time"][:16], run["known_time"][:16]) == ("2025-01-01T00:00", "2025-01-01T05:40")
