"""The benchmarks still run; what they measure is nobody's business here, that their answers are right is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_tiny_run_checks_its_answers(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    sizes = ["--series", "3", "--runs", "5", "--small-uploads", "8", "--json", str(result)]
    command = [sys.executable, "-m", "benchmarks.run", *sizes]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(result.read_text())
    assert report["rows"] == 3 * 5 * 48
    assert sum(one["checked"] == "checked" for one in report["measurements"]) >= 10
    assert "| flat, all |" in done.stdout
