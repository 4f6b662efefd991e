"""Waiting as long as it takes, without being deaf to signals."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["wait_in_slices"]

_SLICE_SECONDS = 0.5


def wait_in_slices(is_over: Callable[[float], object]) -> None:
    """Wait until something is over; Ctrl+C and other signals are handled meanwhile.

    Polars' handler for SIGINT restarts a wait without end, and a signal that another thread gets to handle wakes none.

    Args:
        is_over: Waits so many seconds at the most, and says whether it is.
    """
    while not is_over(_SLICE_SECONDS):
        pass
