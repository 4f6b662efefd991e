"""Where errors of disks and engines become errors of ours: callers of the storage package see no others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from timedb.contract.errors import Internal, TimeDBError

__all__ = ["translating_errors"]

_log = logging.getLogger("timedb.storage")


@contextmanager
def translating_errors() -> Iterator[None]:
    """A block, or as a decorator a function, that raises no errors but classes of ``TimeDBError``.

    Raises:
        Internal: in place of whatever else was raised; the log has it.
    """
    try:
        yield
    except (TimeDBError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # PanicException of the engines is no Exception
        _log.exception("the lake could not be read or written")
        raise Internal("the lake could not be read or written") from error
