"""A server that stands still while another cleans the log, and then goes on: nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.delta.stopping import stop_and_wake
from tests.storage.lakes import tenant_folder


@pytest.mark.parametrize("clock_seconds", [0.0, 300.0, -300.0])
def test_a_stopped_server_commits_into_no_hole(lake_dir: Path, clock_seconds: float) -> None:
    log = tenant_folder(lake_dir) / "values/_delta_log"
    turns = 1 if clock_seconds else 2
    stop_and_wake(
        str(lake_dir), lambda: {int(path.stem) for path in log.glob("*.json")}, clock_seconds=clock_seconds, turns=turns
    )
