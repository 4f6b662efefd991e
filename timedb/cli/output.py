"""How answers look: aligned text for people, JSON for programs; errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from timedb.contract.errors import Internal, InvalidRequest, TimeDBError

__all__ = ["can_ask", "confirm", "say", "show", "show_error"]

_SHOWN_CHARS = 500


def show(answer: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print an answer: one object, or a table of many.

    Args:
        answer: JSON values only.
        as_json: As JSON, else as text.
    """
    if as_json:
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    elif isinstance(answer, Mapping):
        _print_aligned([(f"{name}:", _text(value)) for name, value in answer.items()])
    elif answer:
        header = tuple(answer[0])
        _print_aligned([header, *(tuple(_text(row.get(name)) for name in header) for row in answer)])


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is changed for good, unless the caller has said yes already.

    Args:
        question: What is to be done, and what it costs.
        yes: Whether ``--yes`` was said.

    Raises:
        InvalidRequest: nobody can be asked, as standard input is no terminal: what it holds is no answer, yes or no.
        typer.Abort: the answer is no, or there is none.
    """
    if yes:
        return
    if not can_ask():
        raise InvalidRequest(
            f"--yes: is needed where nobody can be asked, as standard input is no terminal; the question is: {question}"
        )
    import typer

    typer.confirm(question, abort=True)


def can_ask() -> bool:
    """Whether somebody sits at the terminal."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def say(line: str) -> None:
    """Tell the person at the terminal something that is not part of the answer."""
    print(line, file=sys.stderr)


def show_error(error: TimeDBError) -> None:
    """Print an error on stderr, on one line; of a fault of the service also where its log has more."""
    say(f"error: {error.code}: {' '.join(error.detail.split())}")
    if error.request_id and isinstance(error, Internal):
        say(f"the server's log has more under request id {error.request_id}")


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            text = json.dumps(value, ensure_ascii=False)
            whole = len(text) <= _SHOWN_CHARS
            return text if whole else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters; --json shows them all)"
