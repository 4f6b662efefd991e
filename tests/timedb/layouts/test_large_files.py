"""Files of any length: what is held in memory does not grow with them, and repeated rows are found all the same."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.timedb.layouts.held import SAID, make_parts_small
from tests.timedb.layouts.reading import rows_of
from timedb.contract.digest import RowsDigest
from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.layouts import duplicates
from timedb.layouts.duplicates import Repeated, Repeats, RowWords
from timedb.layouts.layout import Layout
from timedb.layouts.opening import open_bytes
from timedb.layouts.prepared import prepare


def lines(count: int, *more: str) -> str:
    """A file of so many rows, and more, that begin in line ``count`` + 2."""
    return "t,v\n" + "".join(f"{1735689600 + 60 * row},{row}\n" for row in range(count)) + "".join(more)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is cut or set down is so after a thousandth of what it usually is."""
    make_parts_small(monkeypatch)


def held(what: str, *paths: Path) -> list[int]:
    """What a process of its own prints of files."""
    command = [sys.executable, "-m", "tests.timedb.layouts.held", what, *map(str, paths)]
    told: list[int] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return told


def test_what_is_held_in_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    paths = []
    for rows in (1_000, 5_000, 13_000):
        paths.append(tmp_path / f"{rows}.csv")
        paths[-1].write_text(lines(rows))
    _, few, many = held("rows", *paths)  # by the first it is imported and made what is so once
    assert many < few + 50_000  # two words a row would be 128,000 bytes more


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("more", "said", "reason"),
    [
        (("1735689600,0\n",), {}, "line 2 and line 4002: 's' has .* twice, with the same value 0.0; --duplicates drop"),
        (("\n", "1735689660,9\n"), {}, r"line 3 and line 4003: .* contradict each other: 1\.0 and 9\.0"),
        (("1735689660,9\n",), {"duplicates": "drop"}, "line 3 and line 4002: .* contradict"),
        (("1735689600,0\n", "1735869660,9\n"), {}, "line 3003 and line 4003: .* contradict"),  # the worse fault first
    ],
)
def test_both_lines_are_named_however_far_they_are_apart(
    tmp_path: Path, more: tuple[str, ...], said: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        rows_of(tmp_path, lines(4_000, *more), **SAID, **said)


@pytest.mark.usefixtures("small_parts")
def test_lines_are_right_where_cells_have_several_and_others_are_empty(tmp_path: Path) -> None:
    rows = "".join(f'{1735689600 + 60 * row},{row},"a\nb"\n\n' for row in range(1_000))
    with pytest.raises(InvalidRequest, match="valid_time: line 2 and line 3002: 's' has"):
        rows_of(tmp_path, f't,v,annotation\n{rows}1735689600,0,"a\nb"\n', **SAID)


@pytest.mark.usefixtures("small_parts")
def test_rows_that_are_dropped_leave_the_run_that_was_there(tmp_path: Path) -> None:
    said = Layout.of({**SAID, "duplicates": "drop"})
    once, twice = tmp_path / "once.csv", tmp_path / "twice.csv"
    once.write_text(lines(3_000))
    twice.write_text(lines(3_000, *lines(1_000).splitlines(keepends=True)[1:]))
    with prepare(once, said) as first, prepare(twice, said) as second:
        assert (second.rows, second.dropped) == (3_000, 1_000)
        assert second.digest({}) == first.digest({})
        assert second.reader().read_all().equals(first.reader().read_all())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1), st.integers(0, 1)), max_size=40), st.integers(1, 9))
def test_the_first_faults_of_a_file_are_found_however_it_is_cut(rows: list[tuple[int, int, int]], cut: int) -> None:
    """Addresses of few keys, so that some share one; against the same by a dictionary."""
    first: dict[tuple[int, int], tuple[int, int]] = {}
    left_out, contradicted = [], []
    for row, (key, check, whole) in enumerate(rows):
        if (key, check) not in first:
            first[key, check] = (row, whole)
        elif first[key, check][1] == whole:
            left_out.append(row)
        else:
            contradicted.append(row)
    words = [np.array(each, dtype=np.uint64) for each in zip(*rows, strict=True)] or [np.array([], np.uint64)] * 3
    words[0] = words[0] << np.uint64(60)  # their first bits differ, as those of words do
    with pytest.MonkeyPatch.context() as patched, Repeats(Layout.of({"duplicates": "drop"}), RowsDigest()) as repeats:
        patched.setattr(duplicates, "_RUN_ROWS", 2 * cut)
        for start in range(0, len(rows), cut):
            repeats.add(RowWords(*(each[start : start + cut] for each in words)))
        if contradicted:
            with pytest.raises(Repeated) as fault:
                repeats.end()
            assert not fault.value.same
            earlier, later = fault.value.rows
            assert later <= contradicted[0]
            assert rows[earlier][:2] == rows[later][:2]
            assert rows[earlier][2] != rows[later][2]
        else:
            found = repeats.end()
            assert np.flatnonzero(found.among(0, len(rows))).tolist() == left_out
            assert found.count == len(left_out)


def test_packed_parquet_is_unpacked_into_a_file(tmp_path: Path) -> None:
    table = pa.table({"t": np.arange(200_000) * 60, "v": np.random.default_rng(1).normal(size=200_000)})
    plain = pa.BufferOutputStream()
    parquet.write_table(table, plain)
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(plain.getvalue(), 1))
    most, size = held("packed", path)
    assert size == plain.getvalue().size
    assert most < size // 2
    with open_bytes(path, None) as (source, kind, _):
        assert kind == "parquet"
        assert parquet.read_table(source).equals(table)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.usefixtures("small_parts")
def test_no_room_for_temporary_files_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: open("/dev/full", "w+b"))  # noqa: SIM115
    with pytest.raises(TooLarge, match="no room for them where TMPDIR says"):
        rows_of(tmp_path, lines(4_000), **SAID)
    packed = pa.BufferOutputStream()
    parquet.write_table(pa.table({"t": np.arange(2_000)}), packed)
    with pytest.raises(TooLarge, match="no room for them where TMPDIR says"):
        rows_of(tmp_path, gzip.compress(packed.getvalue()), "a.parquet.gz", **SAID)
