"""Completion, asked for as bash does: by the function that ``timedb --install-completion`` installs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
set -eu
source <(_TIMEDB_COMPLETE=source_bash timedb)
complete -p timedb | grep -q -- '-F _timedb_completion'
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _timedb_completion timedb; printf '%s|' "${COMPREPLY[@]}"; echo; }
ask timedb wa
ask timedb import timedb-
ask timedb upload --repeated
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no bash")
def test_bash_completes_commands_groups_and_options() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", SCRIPT], capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["watch|", "timedb-0.1|timedb-0.8|", "--repeated-hour|"]
