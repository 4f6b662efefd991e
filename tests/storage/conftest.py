"""Lakes of their own for the tests of storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage import results
from tests.storage.lakes import open_tenant, tiny_settings
from tests.storage.operations import write_history
from timedb.storage import Lake, Tenant


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with rows in every tier, corrections, a withdrawal and an update_id; to be copied, not written to."""
    folder = tmp_path_factory.mktemp("history") / "lake"
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        write_history(open_tenant(lake))
    return folder


@pytest.fixture
def lake(lake_dir: Path) -> Iterator[Lake]:
    """A new lake under tiny settings, in ``lake_dir``."""
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        yield lake


@pytest.fixture
def tenant(lake: Lake) -> Tenant:
    """The tenant of that lake."""
    return open_tenant(lake)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Where a backup is made."""
    return tmp_path / "backup"


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Tenant]]:
    """Opens lakes for as long as the test takes."""
    lakes: list[Lake] = []

    def open_lake(folder: Path) -> Tenant:
        lakes.append(Lake.open(str(folder), tiny_settings(), create=False))
        return open_tenant(lakes[-1])

    yield open_lake
    for lake in lakes:
        lake.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, after the whole campaign or a part of it."""
    if results.ALL:
        terminalreporter.write_line("\n" + "\n".join(results.table()))
