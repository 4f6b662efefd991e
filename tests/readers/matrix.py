"""``make readers``: old and new versions of the readers, each in an environment of its own.

It installs them from PyPI into ``.venv-readers`` (about 3 GB; once), makes a lake, and asks every version for the rows
under filters on every column of every table. It prints a table and fails where a supported version finds other rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from tests.readers.expected import FEW, expectations, tables_of
from tests.readers.history import write_lake

FOLDER = Path(".venv-readers")
PROBE = Path(__file__).with_name("probe.py")
SUPPORTED: dict[str, tuple[str, ...]] = {
    "polars-1.28": ("polars==1.28.1", "deltalake==0.25.5", "pyarrow"),
    "polars-1.30": ("polars==1.30.0", "deltalake==0.25.5", "pyarrow"),
    "polars-1.36": ("polars==1.36.1", "deltalake==1.2.1", "pyarrow"),
    "polars-1.42": ("polars==1.42.1", "deltalake==1.4.2", "pyarrow"),
    "polars-1.44": ("polars==1.44.2", "deltalake==1.0.2", "pyarrow"),
    "deltalake-0.25": ("deltalake==0.25.5", "pyarrow"),
    "deltalake-1.6.6": ("deltalake==1.6.6", "pyarrow", "polars"),
    "duckdb-1.3.2": ("duckdb==1.3.2", "duckdb-extension-delta==1.3.2"),
    "duckdb-1.4.0": ("duckdb==1.4.0", "duckdb-extension-delta==1.4.0"),
}
NOT_SUPPORTED: dict[str, tuple[str, ...]] = {
    "polars-1.20": ("polars==1.20.0", "deltalake==0.25.5", "pyarrow"),
    "daft-0.7.26": ("daft==0.7.26", "deltalake==1.6.6"),  # drops filters on columns that a file leaves out
}
THEIR_OWN = {("polars-1.36", "Polars over pyarrow")}  # it cannot put a time into a filter of pyarrow, and says so


def main() -> int:
    """How many supported versions find wrong rows."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder) / "lake"
        write_lake(lake)
        wanted = Path(folder) / "expected.json"
        tables = tables_of(lake)
        asked = [each for name, table in tables.items() for each in expectations(table, _tests(name))]
        wanted.write_text(json.dumps(asked))
        for name, packages in {**SUPPORTED, **NOT_SUPPORTED}.items():
            found = _probe(_python(name, packages), wanted)
            for reader, answer in found.items():
                wrong = answer["wrong"]
                print(
                    f"{name:16} {reader:28} {answer['version']:8} {answer['checked'] - len(wrong)}/{answer['checked']}"
                )
                for each in wrong[:2]:
                    table = Path(each["table"]).name
                    print(f"    {table}.{each['column']} {each['test']}: {each['rows']} rows, found {each['found']}")
                failed += bool(wrong) and name in SUPPORTED and (name, reader) not in THEIR_OWN
    return failed


def _tests(table: str) -> tuple[str, ...]:
    return ("==", ">=", "is null", "is not null") if table == "values" else FEW


def _python(name: str, packages: tuple[str, ...]) -> Path:
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "ready").touch()
    return python


def _probe(python: Path, wanted: Path) -> dict[str, Any]:
    done = subprocess.run([python, PROBE, wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"(none)": {"version": "", "checked": 1, "wrong": [_crash(done.stderr)]}}
    answers: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return answers


def _crash(text: str) -> dict[str, Any]:
    last = text.strip().rpartition("\n")[2]
    return {"table": "", "column": "", "test": "", "rows": 0, "found": last}


if __name__ == "__main__":
    sys.exit(main())
