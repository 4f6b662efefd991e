"""DuckDB's Delta extension comes out of its package, or it is said what is missing; nothing is downloaded."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import duckdb

from timedb.storage.direct.duckdb_extension import load_delta, load_statement

LOAD = """
import sys
first, second, project = sys.argv[1:]
sys.path[:] = [project, *(each for each in sys.path if not each.endswith("site-packages")), first]
import duckdb
from timedb.storage.direct.duckdb_extension import load_delta, load_statement
from timedb.contract.errors import NotFound
for _ in range(2):
    try:
        load_delta(duckdb.connect())
    except NotFound as error:
        print(error.detail, load_statement(), sep="\\n")
    sys.path.insert(0, second)
"""


def test_it_comes_out_of_the_package(tmp_path: Path) -> None:
    with duckdb.connect(config={"extension_directory": str(tmp_path), "threads": 1}) as connection:
        load_delta(connection)
        load_delta(connection)
        connection.execute(load_statement())  # loaded twice is loaded once
        state = "SELECT loaded, installed FROM duckdb_extensions() WHERE extension_name = 'delta'"
        assert connection.execute(state).fetchone() == (True, False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Where the package is not installed, and where it is of another version."""
    without, older = tmp_path / "without", tmp_path / "older"
    without.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith("duckdb_extension"):
            (without / each.name).symlink_to(each)
    there = older / "duckdb_extension_delta" / "extensions" / "v1.5.0"
    there.mkdir(parents=True)
    (there / "delta.duckdb_extension").write_bytes(b"of DuckDB 1.5.0")
    about = older / "duckdb_extension_delta-1.5.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: duckdb_extension_delta\nVersion: 1.5.0\n")

    command = [sys.executable, "-c", LOAD, str(without), str(older), str(Path(__file__).parents[3])]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"HOME": str(tmp_path)}, cwd=tmp_path, check=True
    )

    version = duckdb.__version__
    missing = (
        f"DuckDB's Delta extension is not there: pip install duckdb-extension-delta=={version}, "
        f"or, with internet, INSTALL delta once in DuckDB {version}"
    )
    another = (
        "DuckDB's Delta extension of the package duckdb-extension-delta 1.5.0 fits DuckDB 1.5.0 "
        f"and not {version}: pip install duckdb-extension-delta=={version}, or duckdb==1.5.0 where there is none yet, "
        f"or, with internet, INSTALL delta once in DuckDB {version}"
    )
    said = [line for each in (missing, another) for line in (each, f"-- {each}.", "-- Then: LOAD delta;")]
    assert done.stdout.splitlines() == said
    assert not (tmp_path / ".duckdb").exists()
