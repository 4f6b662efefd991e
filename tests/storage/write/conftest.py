"""A lake with two runs, made once and copied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.correcting import write_two_runs
from tests.storage.lakes import (
    open_tenant,
    tiny_settings,
)
from tests.storage.operations import copy_lake
from timedb.storage import Lake, Tenant


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake to be copied; see :func:`two_runs`."""
    folder = tmp_path_factory.mktemp("written") / "lake"
    with closing(Lake.open(str(folder), tiny_settings())) as lake:
        write_two_runs(open_tenant(lake))
    return folder


@pytest.fixture
def two_runs(written: Path, lake_dir: Path) -> Iterator[Tenant]:
    """An old and a new run about hours 1 and 2 of two series; the new one has the value of an interval too."""
    copy_lake(written, lake_dir)
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        yield open_tenant(lake)
