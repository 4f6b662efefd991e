"""The id of the request that a thread works for, so that whatever logs on its behalf can name it."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["REQUEST_ID"]

REQUEST_ID: ContextVar[str] = ContextVar("timedb_request_id", default="-")
"""Set where a call comes in; "-" in threads that work for nobody in particular, as maintenance does."""
