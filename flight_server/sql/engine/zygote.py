"""Forks a process for each query. It has DuckDB and Arrow loaded, so that a query starts in milliseconds.

It is a process of its own because a server has threads, and a process with threads cannot be forked. Each query is one
because a query may crash, or take what memory and time there is: then it alone ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from importlib.abc import MetaPathFinder

__all__ = ["main"]

# DuckDB looks for these libraries and pushes filters down into `pyarrow.dataset`, which takes NaN for something else.
_UNWANTED = {"pyarrow.dataset", "pandas", "polars", "numpy", "torch", "tensorflow", "pyspark", "IPython"}


class _Refuse(MetaPathFinder):
    """Makes the import of some libraries fail."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Called for each import."""
        if name in _UNWANTED:
            raise ModuleNotFoundError(f"{name} is not wanted here", name=name)


def main(descriptor: int) -> None:
    """Serve until the server hangs up.

    Args:
        descriptor: Of a Unix socket; each message carries the descriptor of a query's own connection.
    """
    sys.meta_path.insert(0, _Refuse())
    from .query import serve

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when it is over
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children, so none stays behind
    control = socket.socket(fileno=descriptor)
    control.sendall(b"+")
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1, 1)
        if not message:
            os._exit(0)
        for query in descriptors:
            try:
                child = os.fork()
            except OSError:
                child = -1  # closing the connection tells the server
            if child == 0:
                control.close()
                serve(socket.socket(fileno=query))
                os._exit(0)
            os.close(query)
