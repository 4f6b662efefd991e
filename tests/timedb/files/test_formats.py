"""The formats that answers are written in, to the byte, in the styles of the command line and of REST."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from timedb.cli.formats import pieces_of
from timedb.cli.options import Format
from timedb.files.formats import FORMATS, write_body
from timedb.rest_gateway.answer.formats import style_of

ROWS = pa.record_batch(
    {
        "series_key": pa.array(["a,b", None, ""]).dictionary_encode(),
        "valid_time": pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC")),
        "value": pa.array([0.5, math.inf, None]),
        "tags": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
        'a "b", so': pa.array(["q", None, '"']),
    }
)
AT = "2025-01-01T00:00:00.000000+00:00"
FILES: dict[Format, str] = {
    "csv": 'series_key,valid_time,value,tags,"a ""b"", so"\n'
    f'"a,b",{AT},0.5,"[""x"", ""y""]",q\n,{AT},inf,[],\n"",{AT},,,""""\n',
    "ndjson": f'{{"series_key": "a,b", "valid_time": "{AT}", "value": 0.5, "tags": ["x", "y"], "a \\"b\\", so": "q"}}\n'
    f'{{"series_key": null, "valid_time": "{AT}", "value": "Infinity", "tags": [], "a \\"b\\", so": null}}\n'
    f'{{"series_key": "", "valid_time": "{AT}", "value": null, "tags": null, "a \\"b\\", so": "\\""}}\n',
}
FILES["json"] = "[\n" + FILES["ndjson"].replace("}\n", "},\n").removesuffix(",\n") + "\n]\n"
REST = {
    "csv": FILES["csv"].replace('"", ""', '"",""').replace("inf", "Infinity"),
    "ndjson": FILES["ndjson"].replace('": ', '":').replace(', "', ',"').replace('"Infinity"', "null"),
}
REST["json"] = '{"data":[' + REST["ndjson"].replace("}\n", "},").removesuffix(",") + '],"count":3,"next_cursor":"c"}'


@pytest.mark.parametrize("name", FILES)
def test_the_command_line_writes_files(name: Format) -> None:
    assert b"".join(pieces_of(name, ROWS.schema, [ROWS])).decode() == FILES[name]


def test_a_json_file_without_rows_is_an_empty_array() -> None:
    assert b"".join(pieces_of("json", ROWS.schema, [])) == b"[]\n"


@pytest.mark.parametrize("name", REST)
def test_rest_writes_answers(name: str) -> None:
    body = next(each for each in FORMATS if each.name == name)
    written = b"".join(write_body(body(ROWS.schema, style_of("c", non_finite_text=False)), [ROWS]))
    assert written.decode() == REST[name]
