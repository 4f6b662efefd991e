"""ArcticDB's side of :mod:`benchmarks.arctic`: ``python arctic_worker.py FOLDER``, JSON lists in, objects out.

It runs in an environment that has only ``arcticdb`` and ``pyarrow``, so it imports nothing else.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa


class Worker:
    """A library in LMDB; frames to write and the last answers, by symbol."""

    def __init__(self, folder: Path) -> None:
        self.module: Any = importlib.import_module("arcticdb")  # neither has types here
        self.pandas: Any = importlib.import_module("pandas")
        self._library = self.module.Arctic(f"lmdb://{folder}/lmdb").create_library("bench")
        self._frames: dict[str, Any] = {}
        self._answers: dict[str, pa.Table] = {}
        self._appended: dict[str, int] = {}

    def give(self, symbol: str, path: str) -> None:
        """A frame from an Arrow file; its index is valid_time."""
        frame = pa.ipc.open_file(path).read_all().to_pandas().set_index("valid_time")
        frame.index = frame.index.tz_convert(None).astype("datetime64[ns]")
        frame["known_time"] = frame["known_time"].dt.tz_convert(None).astype("datetime64[ns]")
        self._frames[symbol] = frame

    def write(self, symbol: str) -> None:
        """One version, the one before is removed."""
        self._library.write(symbol, self._frames[symbol], prune_previous_versions=True)

    def append(self, symbol: str, rows: int) -> None:
        """The next rows."""
        start = self._appended.get(symbol, 0)
        self._library.append(symbol, self._frames[symbol].iloc[start : start + rows])
        self._appended[symbol] = start + rows

    def read(self, symbol: str) -> None:
        """All of it, as Arrow."""
        self._answers[symbol] = self._library.read(symbol, output_format=self.module.OutputFormat.PYARROW).data

    def save(self, symbol: str, path: str) -> None:
        """The last answer into an Arrow file."""
        answer = self._answers[symbol]
        with pa.ipc.new_file(path, answer.schema) as file:
            file.write_table(answer)

    def bytes(self, symbol: str) -> dict[str, int]:
        """Compressed bytes of the data."""
        sizes = self._library.admin_tools().get_sizes_for_symbol(symbol)
        return {"bytes": sum(size.bytes_compressed for size in sizes.values())}


def main() -> None:
    """Serve until standard input ends."""
    try:
        worker = Worker(Path(sys.argv[1]))
    except ImportError as error:
        print(json.dumps({"error": f"{error.name} is not installed"}), flush=True)
        return
    print(json.dumps({"version": worker.module.__version__, "pandas": worker.pandas.__version__}), flush=True)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        answer = getattr(worker, verb)(*arguments)
        print(json.dumps(answer or {}), flush=True)


if __name__ == "__main__":
    main()
