"""Everything, and the page of it: ``python -m benchmarks --size medium``.

Each part runs in a process of its own; its JSON goes into ``benchmarks/results``, the page into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.report import page

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run the parts, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "medium"), default="small")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--parts", nargs="*", choices=("run", "published", "growth"), default=None, help="only these")
    parser.add_argument("--no-peer", action="store_true", help="leave all peers out")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    tiny, no_peer = options.size == "tiny", ["--no-peer"] if options.no_peer else []
    parts = {
        "run": ["--size", options.size, *(["--rounds", "1"] if tiny else []), *no_peer],
        "published": [*(["--scale", "50", "--rounds", "1"] if tiny else []), *no_peer],
        "growth": ["--tiny"] if tiny else [],
    }
    for part, arguments in parts.items():
        if options.parts is None or part in options.parts:
            result = options.results / f"{part}.json"
            command = [sys.executable, "-m", f"benchmarks.{part}", *arguments, "--json", str(result)]
            subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    options.page.write_text(page(options.results))


if __name__ == "__main__":
    main()
