"""The digest of an upload: of the set of its rows, however they came."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from timedb.contract.digest import RowsDigest


@given(data=st.data())
def test_the_digest_is_of_the_set_of_rows(data: st.DataObject) -> None:
    texts = st.one_of(st.none(), st.text(max_size=2))
    row = st.fixed_dictionaries(
        {
            "series": st.integers(0, 2),
            "valid_time": st.integers(-2, 2),
            "valid_time_end": st.one_of(st.none(), st.integers(0, 2)),
            "known_time": st.one_of(st.none(), st.integers(0, 2)),
            "value": st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf")])),
            "annotation": texts,
            "tags": st.one_of(st.none(), st.lists(st.text(max_size=2), min_size=1, max_size=2)),
        }
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=8))
    expected = digest([rows])
    assert digest(cut(data.draw(st.permutations(rows)), data.draw(st.integers(1, 8)))) == expected
    place, name = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(sorted(rows[0])))
    other = data.draw(row)[name]
    changed = [{**one, name: other} if index == place else one for index, one in enumerate(rows)]
    same = repr(sorted(map(repr, changed))) == repr(sorted(map(repr, rows)))
    assert (digest([changed]) == expected) == same


def cut(rows: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    """The rows in pieces."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def digest(pieces: list[list[dict[str, Any]]]) -> str:
    """The digest of rows that come in pieces."""
    schema: dict[str, Any] = {
        "series": pl.Int32,
        **dict.fromkeys(("valid_time", "valid_time_end", "known_time"), pl.Datetime("us", "UTC")),
        "value": pl.Float64,
        "annotation": pl.String,
        "tags": pl.List(pl.String),
    }
    found = RowsDigest()
    for piece in pieces:
        found.add(pl.DataFrame(piece, schema=schema).to_arrow(), ["a", "b", "c"])
    return found.text()
