"""Compares two results of ``benchmarks.run``: ``python -m benchmarks.compare before.json after.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["comparison"]


def comparison(before: dict[str, Any], after: dict[str, Any]) -> str:
    """A Markdown table of what both measured: the medians, and how many times faster the second is."""
    known = {_key(one): one["median"] for one in before["measurements"]}
    lines = ["| | work | who | before | after | times as fast |", "|---|---|---|--:|--:|--:|"]
    for one in after["measurements"]:
        if (old := known.get(_key(one))) is not None:
            ratio = old / one["median"]
            times = f"{1000 * old:.1f} ms | {1000 * one['median']:.1f} ms"
            lines.append(f"| {one['target']} | {one['work']} | {one['who']} | {times} | {ratio:.2f} |")
    return "\n".join(lines)


def _key(measurement: dict[str, Any]) -> tuple[str, str, str]:
    return measurement["target"], measurement["work"], measurement["who"]


if __name__ == "__main__":
    first, second = (json.loads(Path(path).read_text()) for path in sys.argv[1:3])
    print(comparison(first, second))
