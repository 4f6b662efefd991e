"""DuckDB's Delta extension comes out of its package, or it is said what is missing; nothing is downloaded."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import duckdb
import pytest

from storage.duckdb_extension import load_delta, load_statement

LOAD = """
import sys
sys.path[:] = [each for each in sys.path if not each.endswith("site-packages")] + sys.argv[1:]
import duckdb
from storage.duckdb_extension import load_delta, load_statement
print(load_statement())
load_delta(duckdb.connect())
"""


def test_it_comes_out_of_the_package(tmp_path: Path) -> None:
    with duckdb.connect(config={"extension_directory": str(tmp_path), "threads": 1}) as connection:
        load_delta(connection)
        load_delta(connection)
        connection.execute(load_statement())  # loaded twice is loaded once
        state = "SELECT loaded, installed FROM duckdb_extensions() WHERE extension_name = 'delta'"
        assert connection.execute(state).fetchone() == (True, False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def without_package(tmp_path: Path) -> Path:
    """The installed packages but for the extension's."""
    folder = tmp_path / "site"
    folder.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith("duckdb_extension"):
            (folder / each.name).symlink_to(each)
    return folder


def attempt(folder: Path, home: Path) -> tuple[str, str]:
    """What is printed and what is raised where a folder holds the packages."""
    command = [sys.executable, "-c", LOAD, str(folder), str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, env={"HOME": str(home)}, cwd=home)
    assert list(home.glob(".duckdb")) == []
    return done.stdout, done.stderr.strip().rpartition("\ntimedb.errors.NotFound: ")[2]


def test_without_the_package_it_is_named(without_package: Path, tmp_path: Path) -> None:
    said, error = attempt(without_package, tmp_path)
    version = duckdb.__version__
    assert error == (
        f"DuckDB's Delta extension is not there: pip install duckdb-extension-delta=={version}, "
        f"or, with internet, INSTALL delta once in DuckDB {version}"
    )
    assert f"-- {error}.\n" in said
    assert not [line for line in said.splitlines() if not line.startswith("--")]


def test_a_package_of_another_version_is_named(without_package: Path, tmp_path: Path) -> None:
    there = without_package / "duckdb_extension_delta" / "extensions" / "v1.5.0"
    there.mkdir(parents=True)
    (there / "delta.duckdb_extension").write_bytes(b"of DuckDB 1.5.0")
    about = without_package / "duckdb_extension_delta-1.5.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: duckdb_extension_delta\nVersion: 1.5.0\n")
    said, error = attempt(without_package, tmp_path)
    version = duckdb.__version__
    assert error == (
        "DuckDB's Delta extension of the package duckdb-extension-delta 1.5.0 fits DuckDB 1.5.0 "
        f"and not {version}: pip install duckdb-extension-delta=={version}, or duckdb==1.5.0 where there is none yet, "
        f"or, with internet, INSTALL delta once in DuckDB {version}"
    )
    assert "LOAD '" not in said
