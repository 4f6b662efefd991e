"""Why a query is not run, or not to its end."""

from __future__ import annotations

import json

__all__ = ["QueryError", "query_error_of"]

_FAULTS_OF_THE_QUERY = {
    "Parser",
    "Binder",
    "Catalog",
    "Conversion",
    "Invalid Input",
    "Invalid type",
    "Mismatch Type",
    "Out of Range",
    "Divide by Zero",
    "Decimal",
    "Expression",
    "Parameter Not Resolved",
    "Parameter Not Allowed",
    "Syntax",
    "Constraint",
    "Sequence",
    "Settings",
}
_MAX_CHARS = 400
_TOO_DEEP = "query: it is nested too deeply"
_TOO_MUCH_MEMORY = "query: it needs more memory than one query may take"


class QueryError(Exception):
    """A query that is not answered.

    Attributes:
        code: Of the error that the client gets.
        detail: What is wrong, for the client.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


def query_error_of(error: BaseException) -> QueryError | None:
    """What an error of DuckDB, raised by it or by a stream over it, says to the client; None: it is no fault of his."""
    if isinstance(error, QueryError):
        return error
    if isinstance(error, MemoryError):
        return QueryError("too_large", _TOO_MUCH_MEMORY)
    if isinstance(error, RecursionError):
        return QueryError("invalid_request", _TOO_DEEP)
    text = str(error)
    try:
        said = json.loads(text[text.index("{") :])
        kind, message = str(said["exception_type"]), str(said["exception_message"])
    except (ValueError, KeyError, TypeError):
        return None
    if kind == "Out of Memory" or "bad allocation" in message or "bad_alloc" in message:
        return QueryError("too_large", _TOO_MUCH_MEMORY)
    if kind == "Not implemented":
        return QueryError("unimplemented", f"query: {_line(message)}")
    if kind not in _FAULTS_OF_THE_QUERY or "Python exception" in message:
        return None
    if "expression depth" in message:
        return QueryError("invalid_request", _TOO_DEEP)
    position = said.get("position")
    where = f" (at character {int(position) + 1})" if isinstance(position, str) and position.isdigit() else ""
    return QueryError("invalid_request", f"query: {_line(message)}{where}")


def _line(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"
