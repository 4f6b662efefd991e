"""TimeDB: a data service for time series whose values are revised.

``import timedb as td`` gives the client (:func:`connect`), the notebook's facade (:func:`create`,
:func:`start_api_background`, …) and the error tree. Names are resolved on first use, so that the import itself
costs nothing and a server can import the vocabulary without the client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from timedb._version import __version__

if TYPE_CHECKING:
    from timedb.client import Client, connect
    from timedb.client.receipt import Receipt
    from timedb.client.writer import Writer
    from timedb.contract.errors import (
        Busy,
        Conflict,
        Damaged,
        Forbidden,
        IncompleteUpload,
        Internal,
        InvalidRequest,
        NotFound,
        OutcomeUnknown,
        StorageFull,
        StorageRefused,
        TimeDBError,
        Timeout,
        TooLarge,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )
    from timedb.direct import duckdb_macros, load_duckdb_delta, scan_lake, spark_functions, split_read
    from timedb.run.sdk import check_api, create, delete, start_api, start_api_background, stop_api
    from timedb.run.users import (
        activate_user,
        create_user,
        create_with_users,
        deactivate_user,
        list_users,
        regenerate_api_key,
        update_user,
    )

__all__ = [
    "Busy",
    "Client",
    "Conflict",
    "Damaged",
    "Forbidden",
    "IncompleteUpload",
    "Internal",
    "InvalidRequest",
    "NotFound",
    "OutcomeUnknown",
    "Receipt",
    "StorageFull",
    "StorageRefused",
    "TimeDBError",
    "Timeout",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Writer",
    "__version__",
    "activate_user",
    "check_api",
    "connect",
    "create",
    "create_user",
    "create_with_users",
    "deactivate_user",
    "delete",
    "duckdb_macros",
    "list_users",
    "load_duckdb_delta",
    "regenerate_api_key",
    "scan_lake",
    "spark_functions",
    "split_read",
    "start_api",
    "start_api_background",
    "stop_api",
    "update_user",
]

_HOMES = {
    "timedb.client": ("Client", "connect"),
    "timedb.direct": ("duckdb_macros", "load_duckdb_delta", "scan_lake", "spark_functions", "split_read"),
    "timedb.client.receipt": ("Receipt",),
    "timedb.client.writer": ("Writer",),
    "timedb.run.sdk": ("check_api", "create", "delete", "start_api", "start_api_background", "stop_api"),
    "timedb.run.users": (
        "activate_user",
        "create_user",
        "create_with_users",
        "deactivate_user",
        "list_users",
        "regenerate_api_key",
        "update_user",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF.get(name, "timedb.contract.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
