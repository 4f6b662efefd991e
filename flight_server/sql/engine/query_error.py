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
    "Unknown Type",
    "Object Size",
    "Dependency",
    "Invalid Configuration",
}
_NOT_OFFERED = {
    "Not implemented": "",
    "Permission": "nothing outside of the tables can be reached",
    "Missing Extension": "",
}
_NO_ARROW = "Unsupported Arrow type"
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
    kind, message, position = _parts_of(str(error))
    if kind == "Out of Memory" or "bad allocation" in message or "bad_alloc" in message:
        return QueryError("too_large", _TOO_MUCH_MEMORY)
    if kind in _NOT_OFFERED:
        remedy = "; cast it to another, such as VARCHAR" if message.startswith(_NO_ARROW) else ""
        return QueryError("unimplemented", f"query: {_NOT_OFFERED[kind] or _line(message)}{remedy}")
    if kind not in _FAULTS_OF_THE_QUERY or "Python exception" in message:
        return None
    if "expression depth" in message:
        return QueryError("invalid_request", _TOO_DEEP)
    where = f" (at character {int(position) + 1})" if isinstance(position, str) and position.isdigit() else ""
    return QueryError("invalid_request", f"query: {_line(message)}{where}")


def _parts_of(text: str) -> tuple[str, str, object]:
    """Kind, message and position of an error: from the JSON in it, or, where DuckDB writes none, its first words."""
    try:
        said = json.loads(text[text.index("{") :])
        return str(said["exception_type"]), str(said["exception_message"]), said.get("position")
    except (ValueError, KeyError, TypeError):
        kind, _, message = text.partition(" Error: ")
        return kind, message, None


def _line(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"
