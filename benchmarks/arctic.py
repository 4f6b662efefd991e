"""A peer for raw frames: ArcticDB on LMDB, in a process and an environment of its own, for it wants pandas below 3.

It knows no known_time, so it takes no part in the views: it writes and reads a frame of the same rows, and appends
small ones. Its licence (BSL 1.1) allows this use; nothing else of the project needs it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks.peers import Missing, numbered

__all__ = ["ArcticDB"]

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-arcticdb"


class ArcticDB:
    """A library of symbols, one a frame.

    Args:
        folder: Where it keeps its data.

    Raises:
        Missing: ``arcticdb`` is installed neither in ``.venv-arcticdb`` nor beside this package.
    """

    name = "ArcticDB, raw frame"

    def __init__(self, folder: Path) -> None:
        own = ENVIRONMENT / "bin" / "python"
        command = [str(own) if own.exists() else sys.executable, str(Path(__file__).with_name("arctic_worker.py"))]
        self._folder = folder / "arcticdb"
        self._folder.mkdir()
        self._process = subprocess.Popen(
            [*command, str(self._folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            started = self._answer()
        except Missing:
            self.close()
            raise
        self.how = (
            f"ArcticDB {started['version']} on LMDB in a process of its own (pandas {started['pandas']}): the same "
            "rows as one pandas frame, sorted by its index valid_time, default segments of 100,000 rows; read back as "
            "Arrow (`OutputFormat.PYARROW`, without copies by its documentation); no views, for it has no known_time"
        )

    def close(self) -> None:
        """End its process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(30)

    def give(self, symbol: str, frame: pl.DataFrame) -> None:
        """Hand it a frame with ``series_key, valid_time, known_time, value``, which it holds in memory."""
        rows = numbered(frame.sort("valid_time"))
        path = self._folder / f"{symbol}.arrow"
        with pa.ipc.new_file(path, rows.schema) as file:
            file.write_table(rows)
        self._ask("give", symbol, str(path))
        path.unlink()

    def write(self, symbol: str) -> None:
        """Write the frame that it holds."""
        self._ask("write", symbol)

    def append(self, symbol: str, rows: int) -> None:
        """Append the next rows of the frame that it holds."""
        self._ask("append", symbol, rows)

    def read(self, symbol: str) -> None:
        """Read the symbol; the answer stays in its process."""
        self._ask("read", symbol)

    def answer(self, symbol: str) -> pl.DataFrame:
        """What was read last."""
        path = self._folder / f"{symbol}.answer"
        self._ask("save", symbol, str(path))
        return pl.DataFrame(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def bytes(self, symbol: str) -> int:
        """Compressed bytes of a symbol."""
        return int(self._ask("bytes", symbol)["bytes"])

    def _ask(self, *words: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            raise Missing(str(answer["error"]))
        return answer
