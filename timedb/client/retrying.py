"""What an upload does about a server that is busy or does not answer: it is sent again."""

from __future__ import annotations

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from timedb.contract.errors import Busy, OutcomeUnknown, Timeout

__all__ = ["RETRIED", "UPLOAD_ATTEMPTS", "retrying"]

UPLOAD_ATTEMPTS = 4

RETRIED = (Busy, Timeout, OutcomeUnknown)
"""The errors after which it is sent again."""


def retrying(attempts: int) -> Retrying:
    """Up to so many attempts, with pauses that grow; the last error passes through."""
    return Retrying(
        retry=retry_if_exception_type(RETRIED),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
