"""Recipes: those that are shipped on small files in their layout, with invented values; and what a recipe may say."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.timedb.layouts.reading import rows_of
from timedb.contract.errors import InvalidRequest
from timedb.layouts.layout import Layout
from timedb.layouts.options import FILE_OPTIONS, RUN_OPTIONS
from timedb.layouts.recipe import load_recipe, recipe_text, shipped_recipes

RUN = {each.name for each in RUN_OPTIONS}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


_LOAD_FORECAST = "Day-ahead Total Load Forecast (MW)"
# Recipe → a file, and series, labels, valid_time, valid_time_end, known_time, value of each of its rows.
FILES: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "entsoe-prices": (
        '"MTU (CET/CEST)","Area","Sequence","Day-ahead Price (EUR/MWh)"\n'
        '"26/10/2025 01:00:00 - 26/10/2025 02:00:00","BZN|DE-LU","Sequence Sequence 1","91.5"\n'
        '"26/10/2025 02:00:00 - 26/10/2025 02:00:00","BZN|DE-LU","Sequence Sequence 1","88"\n'
        '"26/10/2025 02:00:00 - 26/10/2025 03:00:00","BZN|DE-LU","Sequence Sequence 1","n/e"\n'
        # As newer files write the hour that comes twice, alone and out of order.
        '"25/10/2026 02:00:00 (CET) - 25/10/2026 03:00:00","BZN|DE-LU","Sequence Sequence 1","7"\n'
        '"25/10/2026 02:00:00 (CEST) - 25/10/2026 02:00:00 (CET)","BZN|DE-LU","Sequence Sequence 1","6"\n',
        [
            ("day-ahead price", '{"area": "BZN|DE-LU"}', "2025-10-25 23:00", "2025-10-26 00:00", None, 91.5),
            ("day-ahead price", '{"area": "BZN|DE-LU"}', "2025-10-26 00:00", "2025-10-26 01:00", None, 88.0),
            ("day-ahead price", '{"area": "BZN|DE-LU"}', "2025-10-26 01:00", "2025-10-26 02:00", None, None),
            ("day-ahead price", '{"area": "BZN|DE-LU"}', "2026-10-25 00:00", "2026-10-25 01:00", None, 6.0),
            ("day-ahead price", '{"area": "BZN|DE-LU"}', "2026-10-25 01:00", "2026-10-25 02:00", None, 7.0),
        ],
    ),
    "entsoe-load": (
        '"MTU (CET/CEST)","Area","Day-ahead Total Load Forecast (MW)","Actual Total Load (MW)"\n'
        '"30/03/2025 01:45 - 30/03/2025 03:00","BZN|PL","100","-"\n',
        [
            ("Actual Total Load (MW)", '{"area": "BZN|PL"}', "2025-03-30 00:45", "2025-03-30 01:00", None, None),
            (
                "Day-ahead Total Load Forecast (MW)",
                '{"area": "BZN|PL"}',
                "2025-03-30 00:45",
                "2025-03-30 01:00",
                None,
                100.0,
            ),
        ],
    ),
    "ercot-load": (
        # The second time first: the flag tells, not the order.
        "OperDay,HourEnding,COAST,NORTH,DSTFlag\n11/02/2025,02:00,2,12,Y\n11/02/2025,02:00,1,11,N\n11/02/2025,24:00,3,13,N\n",
        [
            (zone, None, f"2025-11-0{start}", f"2025-11-0{end}", f"2025-11-0{known}", value + base)
            for zone, base in (("COAST", 0.0), ("NORTH", 10.0))
            for start, end, known, value in (
                ("2 06:00", "2 07:00", "2 08:00", 1),
                ("2 07:00", "2 08:00", "2 09:00", 2),
                ("3 05:00", "3 06:00", "3 07:00", 3),
            )
        ],
    ),
    "elexon-demand": (
        "SETTLEMENT_DATE,SETTLEMENT_PERIOD,ND,TSD,ENGLAND_WALES_DEMAND,EMBEDDED_WIND\n2023-10-29,50,1,2,3,4\n",
        [
            (name, None, "2023-10-29 23:30", "2023-10-30 00:00", "2023-10-30 00:00", value)
            for name, value in (("ENGLAND_WALES_DEMAND", 3.0), ("ND", 1.0), ("TSD", 2.0))
        ],
    ),
    "nyiso-prices": (
        '"Time Stamp","Name","PTID","LBMP ($/MWHr)","Marginal Cost Losses ($/MWHr)"\n'
        '"11/02/2025 00:00","CAPITL",1,30.5,0\n"11/02/2025 00:00","WEST",2,20.5,0\n'
        '"11/02/2025 01:00","CAPITL",1,31,0\n"11/02/2025 01:00","WEST",2,21,0\n'
        '"11/02/2025 01:00","CAPITL",1,32,0\n"11/02/2025 01:00","WEST",2,22,0\n',
        [
            ("lbmp", f'{{"zone": "{zone}"}}', f"2025-11-02 0{hour}:00", f"2025-11-02 0{hour + 1}:00", None, value)
            for zone, values in (("CAPITL", (30.5, 31.0, 32.0)), ("WEST", (20.5, 21.0, 22.0)))
            for hour, value in zip((4, 5, 6), values, strict=True)
        ],
    ),
    "caiso-prices": (
        "INTERVALSTARTTIME_GMT,INTERVALENDTIME_GMT,OPR_DT,OPR_HR,NODE,MARKET_RUN_ID,LMP_TYPE,MW\n"
        "2025-11-02T08:00:00-00:00,2025-11-02T09:00:00-00:00,2025-11-02,2,TH_NP15,DAM,LMP,41.25\n",
        [("LMP", '{"market": "DAM", "node": "TH_NP15"}', "2025-11-02 08:00", "2025-11-02 09:00", None, 41.25)],
    ),
    "open-meteo": (
        "latitude,longitude,elevation,utc_offset_seconds,timezone,timezone_abbreviation\n52.52,13.42,38.0,0,GMT,GMT\n\n"
        "time,temperature_2m (°C),wind_speed_10m (km/h)\n2025-01-01T00:00,1.5,\n",
        [
            ("temperature_2m (°C)", None, "2025-01-01 00:00", None, None, 1.5),
            ("wind_speed_10m (km/h)", None, "2025-01-01 00:00", None, None, None),
        ],
    ),
    "open-meteo-json": (
        '{"latitude": 52.52, "utc_offset_seconds": 0, "timezone": "GMT", "hourly_units": {"time": "iso8601"}, '
        '"hourly": {"time": ["2025-01-01T00:00", "2025-01-01T01:00"], "temperature_2m": [1.5, null]}, '
        '"daily": {"time": []}}\n',
        [
            ("temperature_2m", None, "2025-01-01 00:00", None, None, 1.5),
            ("temperature_2m", None, "2025-01-01 01:00", None, None, None),
        ],
    ),
    "alfred-vintages": (
        "series_id,date,realtime_start,realtime_end,value\nGDP,2024-10-01,2025-01-30,2025-02-26,29.7\n"
        "GDP,2024-10-01,2025-02-27,9999-12-31,29.8\nGDP,2025-01-01,2025-02-27,9999-12-31,.\n",
        [
            ("GDP", None, "2024-10-01 00:00", None, "2025-01-30 00:00", 29.7),
            ("GDP", None, "2024-10-01 00:00", None, "2025-02-27 00:00", 29.8),
            ("GDP", None, "2025-01-01 00:00", None, "2025-02-27 00:00", None),
        ],
    ),
    "hub-quantiles": (
        "reference_date,horizon,target,target_end_date,location,output_type,output_type_id,value\n"
        "2025-01-04,1,wk inc hosp,2025-01-11,US,quantile,0.025,10\n"
        "2025-01-04,1,wk inc hosp,2025-01-11,US,quantile,0.50,20\n",
        [
            (
                "wk inc hosp",
                '{"location": "US", "quantile": "0.025"}',
                "2025-01-11 00:00",
                None,
                "2025-01-04 00:00",
                10.0,
            ),
            (
                "wk inc hosp",
                '{"location": "US", "quantile": "0.5"}',
                "2025-01-11 00:00",
                None,
                "2025-01-04 00:00",
                20.0,
            ),
        ],
    ),
    "timedb-0.1": (
        "run_id,value_key,valid_time,valid_time_end,known_time,value,annotation,tags,changed_by,change_time,is_current\n"
        '7,wind,2025-01-01 00:00:00+00,,2024-12-31 12:00:00+00,5.5,checked,"[""a""]",ann,2025-01-02 00:00:00+00,t\n',
        [("wind", None, "2025-01-01 00:00", None, "2024-12-31 12:00", 5.5)],
    ),
}


@pytest.mark.parametrize("recipe", FILES)
def test_a_shipped_recipe_reads_its_layout(tmp_path: Path, recipe: str) -> None:
    content, expected = FILES[recipe]
    said = {name: value for name, value in load_recipe(recipe).items() if name not in RUN}
    found = [
        (
            row["series_key"],
            row.get("labels"),
            *(row.get(name) for name in ("valid_time", "valid_time_end", "known_time", "value")),
        )
        for row in rows_of(tmp_path, content, **said)
    ]
    times = slice(2, 5)
    wanted = [(*row[:2], *(each and at(each) for each in row[times]), row[5]) for row in expected]
    assert found == wanted


def test_every_recipe_that_is_shipped_is_tested() -> None:
    assert shipped_recipes().keys() == FILES.keys()


def test_a_recipe_says_what_was_said(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        each.name: {"flag": True, "count": 4, "texts": [f"é\\{each.example}\x7f", 'b="x"']}.get(each.kind, each.example)
        for each in (*FILE_OPTIONS, *RUN_OPTIONS)
    }
    (tmp_path / "mine.toml").write_text(recipe_text(said), encoding="utf-8")
    assert load_recipe(tmp_path / "mine.toml") == said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("decimal = ,", "is not TOML"),
        ('decimel = ","', "there is no option 'decimel'; did you mean decimal"),
        ("decimal = 5", "decimal = '5' is not a text"),
        ('ignore = "a"', "ignore = 'a' is not a list of texts"),
        ('wide = "yes"', "wide = 'yes' is not true or false"),
        ("skip_lines = true", "skip_lines = 'True' is not a whole number"),
    ],
)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InvalidRequest, match="--recipe: ") as caught:
        load_recipe(tmp_path / "mine.toml")
    assert reason in caught.value.detail
    with pytest.raises(InvalidRequest, match="did you mean entsoe-prices"):
        load_recipe("entsoe-price")


@pytest.mark.parametrize("option", FILE_OPTIONS, ids=lambda each: each.name)
def test_the_example_of_an_option_is_taken(option: Any) -> None:
    value: Any = {"flag": True, "count": 4, "texts": [option.example]}.get(option.kind, option.example)
    beside = {"period_number": {"period": "30min"}, "repeated_hour": {"time_zone": "UTC"}}.get(option.name, {})
    layout = Layout.of({option.name: value, **beside})
    assert layout.get(option.name) not in (None, (), 0)
    if option.kind in ("word", "count", "length"):
        with pytest.raises(InvalidRequest, match=f"--{option.name.replace('_', '-')}"):
            Layout.of({option.name: "nonsense"})
