"""The audit log: a line for every call that may change something, whatever came of it.

Logger ``timedb.audit``, level INFO; each message is one JSON object:

    {"time": "2025-01-01T00:00:00.000000+00:00", "principal": "ann@example.com", "tenant_id": "…", "method": "do_put",
     "code": "ok", "request_id": "…", "peer": "ipv4:10.0.0.7:4711", "run_id": "…", "rows": 24}

``principal`` is null while the lake is open. ``code`` is ``ok`` or the code of the error that the caller got; of an
upload whose client went away it is ``incomplete_upload``. What else is there depends on the method: :func:`facts_of`.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from timedb.contract.times import format_time, now
from timedb.contract.wire import UpdateSeries
from timedb.flight_server.call.audit_file import AuditFile

__all__ = ["AUDIT_LOGGER", "facts_of", "require_room", "write_line"]

AUDIT_LOGGER = "timedb.audit"

_log = logging.getLogger(AUDIT_LOGGER)
_NAMES = ("run_id", "update_id", "series_id")
_FLAGS = ("created", "retired", "dry_run")
_CHANGES = ("name", "unit", "unit_change", "description")
_COUNTS = ("rows", "updated", "withdrawn", "restored")


def facts_of(message: Any, answer: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a line says of a call beside who made it and when.

    Args:
        message: The command or body.
        answer: What came of it; None where it failed.

    Returns:
        Those of ``run_id``, ``update_id``, ``series_id``, ``created``, ``retired`` and ``dry_run`` that the message or
        the answer has; of ``update_series`` also what it changes; ``rows``: how many were written, corrected,
        withdrawn, restored or removed.
    """
    answer = answer or {}
    facts = {}
    for name in (*_NAMES, *_FLAGS):
        value = answer.get(name, getattr(message, name, None))
        if value is not None:
            facts[name] = value
    if isinstance(message, UpdateSeries):
        said = message.model_dump(include=set(_CHANGES), exclude_unset=True)
        facts.update({name: said[name] for name in _CHANGES if name in said})
    counted = next((name for name in _COUNTS if name in answer), None)  # a receipt's withdrawn is no count
    if counted is not None:
        facts["rows"] = len(answer[counted]) if isinstance(answer[counted], list) else answer[counted]
    return facts


def require_room() -> None:
    """See that a call that is let in can have its line, where the log is a file of its own.

    Raises:
        StorageFull, StorageRefused: it could not.
    """
    for handler in _log.handlers:
        if isinstance(handler, AuditFile):
            handler.require_room()


def write_line(
    *,
    principal: str | None,
    tenant_id: str,
    method: str,
    code: str,
    request_id: str,
    peer: str,
    facts: dict[str, Any],
) -> None:
    """Write the line of a call that has ended."""
    line = {
        "time": format_time(now()),
        "principal": principal,
        "tenant_id": tenant_id,
        "method": method,
        "code": code,
        "request_id": request_id,
        "peer": peer,
        **facts,
    }
    _log.info("%s", json.dumps(line, ensure_ascii=True))
