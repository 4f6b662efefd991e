"""Lakes of their own for the tests of storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage import Lake, Tenant
from tests.storage.lakes import open_tenant, tiny_settings


@pytest.fixture
def lake(lake_dir: Path) -> Iterator[Lake]:
    """A new lake under tiny settings, in ``lake_dir``."""
    with closing(Lake.open(str(lake_dir), tiny_settings())) as lake:
        yield lake


@pytest.fixture
def tenant(lake: Lake) -> Tenant:
    """The tenant of that lake."""
    return open_tenant(lake)
