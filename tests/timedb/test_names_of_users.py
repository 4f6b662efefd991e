"""What is installed takes no name but ``timedb``: a user's own modules neither break it nor are hidden by it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
NAMES = ("storage", "flight_server", "rest_gateway")
FIRST_STEPS = """
import sys
sys.path.insert(0, sys.argv[1])  # the wheel, before the checkout
import timedb as td
assert td.__file__.startswith(sys.argv[1])
td.create("lake")
import storage
assert storage.WHOSE == "the user's"
td.delete("lake")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def test_only_timedb_is_installed(installed: Path) -> None:
    assert {path.name.partition("-")[0] for path in installed.iterdir()} == {"timedb", "timedb_flight"}
    assert all((installed / "timedb" / name / "__init__.py").is_file() for name in NAMES)


def test_a_notebook_beside_modules_of_such_names(installed: Path, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text('WHOSE = "the user\'s"\n')
    command = [sys.executable, "-c", FIRST_STEPS, str(installed)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
