"""DuckDB's Delta extension, out of its Python package: DuckDB itself would download it into the home directory."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from timedb.contract.errors import NotFound

if TYPE_CHECKING:
    import duckdb

__all__ = ["load_delta", "load_statement"]

PACKAGE = "duckdb-extension-delta"


def load_delta(connection: duckdb.DuckDBPyConnection) -> None:
    """Load the extension into a connection; nothing is ever downloaded.

    It is taken from the package, else from where ``INSTALL delta`` has put it.

    Raises:
        NotFound: neither has one for this version of DuckDB; the text says what to install.
        duckdb.Error: DuckDB will not load it, because the connection's settings forbid it, say.
    """
    (version,) = connection.execute("SELECT library_version FROM pragma_version()").fetchone() or ("",)
    state = "SELECT loaded, installed FROM duckdb_extensions() WHERE extension_name = 'delta'"
    loaded, installed = connection.execute(state).fetchone() or (False, False)
    if loaded:
        return
    packaged = _file(version.removeprefix("v"))
    if packaged is None and not installed:
        raise NotFound(_missing(version.removeprefix("v")))
    connection.execute("LOAD delta" if packaged is None else _load(packaged))


def load_statement() -> str:
    """The statement that loads it into the DuckDB that is installed beside us, or a comment that says what to do."""
    try:
        version = metadata.version("duckdb")
    except metadata.PackageNotFoundError:
        version = None
    packaged = version and _file(version)
    if packaged:
        return (
            f"-- Fits DuckDB {version} and no other; there INSTALL delta once, with internet, and LOAD delta instead.\n"
            f"{_load(packaged)};"
        )
    return f"-- {_missing(version)}.\n-- Then: LOAD delta;"


def _load(packaged: Path) -> str:
    return "LOAD '{}'".format(str(packaged).replace("'", "''"))


def _file(version: str) -> Path | None:
    """The extension for a version of DuckDB, if the package is installed and has it."""
    package = util.find_spec(PACKAGE.replace("-", "_"))
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "extensions" / f"v{version}" / "delta.duckdb_extension"
        if file.is_file():
            return file
    return None


def _missing(version: str | None) -> str:
    installed = f"or, with internet, INSTALL delta once in DuckDB{f' {version}' if version else ''}"
    try:
        there = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        wanted = f"{PACKAGE}=={version}" if version else f"{PACKAGE} of DuckDB's very version"
        return f"DuckDB's Delta extension is not there: pip install {wanted}, {installed}"
    return (
        f"DuckDB's Delta extension of the package {PACKAGE} {there} fits DuckDB {there} and not {version}: "
        f"pip install {PACKAGE}=={version}, or duckdb=={there} where there is none yet, {installed}"
    )
