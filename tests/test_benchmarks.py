"""The benchmarks still run; what they measure is nobody's business here, that their answers are right is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.compare import comparison

ROOT = Path(__file__).parents[1]


def test_a_tiny_run_checks_its_answers(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.run", "--size", "tiny", "--rounds", "1", "--no-peer"]
    done = subprocess.run(
        [*command, "--json", str(result)], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(result.read_text())
    assert report["rows"] == 4 * 6 * 48
    assert {one["target"] for one in report["measurements"]} == {f"P{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 11, 12)}
    ours = [
        one for one in report["measurements"] if one["who"].startswith("TimeDB") and one["work"] != "until compacted"
    ]
    assert all(one["checked"] for one in ours)
    assert "| P3 | overlapping, speed against raw Flight |" in done.stdout
    lines = comparison(report, report).splitlines()
    assert len(lines) == 2 + len(report["measurements"])
    assert all(line.endswith("1.00 |") for line in lines[2:])
