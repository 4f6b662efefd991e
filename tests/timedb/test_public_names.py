"""What ``import timedb as td`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import timedb as td
from timedb.contract.errors import error_classes

NAMES = [
    "Busy",
    "Client",
    "Conflict",
    "Damaged",
    "Forbidden",
    "IncompleteUpload",
    "Internal",
    "InvalidRequest",
    "NotFound",
    "OutcomeUnknown",
    "Receipt",
    "StorageFull",
    "StorageRefused",
    "TimeDBError",
    "Timeout",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Writer",
    "__version__",
    "activate_user",
    "check_api",
    "connect",
    "create",
    "create_user",
    "create_with_users",
    "deactivate_user",
    "delete",
    "duckdb_macros",
    "list_users",
    "load_duckdb_delta",
    "regenerate_api_key",
    "scan_lake",
    "spark_functions",
    "split_read",
    "start_api",
    "start_api_background",
    "stop_api",
    "update_user",
]
HEAVY = {"deltalake", "fastapi", "numpy", "pandas", "polars", "pyarrow", "pydantic", "uvicorn"}


def loaded_after(code: str) -> set[str]:
    """The modules that an interpreter has after running some code."""
    report = f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_public_names_are_these() -> None:
    assert td.__all__ == sorted(NAMES)
    assert set(NAMES) <= set(dir(td))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(td, name)
    assert isinstance(value, str) or value.__doc__


def test_every_error_is_public() -> None:
    assert {each.__name__ for each in error_classes()} < set(td.__all__)


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'dance'"):
        _ = td.dance


def test_the_import_alone_loads_no_library() -> None:
    assert not loaded_after("import timedb") & {*HEAVY, "timedb.client"}


def test_the_vocabulary_does_not_pull_in_the_client() -> None:
    code = "from timedb.contract import errors, wire, columns, settings, times, identity"
    assert not loaded_after(code) & {"timedb.client", "timedb.run.sdk", "polars", "fastapi", "pyarrow.flight"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["upload", "--help"], ["serve", "--help"]])
def test_help_loads_no_library(arguments: list[str]) -> None:
    code = f"""
import sys
from timedb.cli import main
sys.argv = ["timedb", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    # Typer itself takes pydantic for the options of a command.
    of_typer = {"pydantic"} if len(arguments) > 1 else set()
    assert not loaded_after(code) & {*HEAVY, "timedb.client", "tenacity"} - of_typer
