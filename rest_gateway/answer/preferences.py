"""What a caller prefers, as headers such as ``Accept`` say it."""

from __future__ import annotations

__all__ = ["weighted"]


def weighted(header: str) -> dict[str, float]:
    """What a header names, in lower case, each with its weight from 0 to 1 (RFC 9110 section 12.4.2).

    A weight that is no number counts as 0, so that nothing is chosen by mistake.
    """
    return dict(_choice(part) for part in header.split(",") if part.strip())


def _choice(part: str) -> tuple[str, float]:
    choice, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return choice, min(1.0, max(0.0, float(value)))
            except ValueError:
                return choice, 0.0
    return choice, 1.0
