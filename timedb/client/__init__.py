"""The Python client over Arrow Flight: :class:`Client`, made by :func:`connect`.

Names are resolved on first use: whoever needs one of the modules alone (the tables in files, say) does not pay for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timedb.client.client import Client, connect
    from timedb.client.selection import Selection

__all__ = ["Client", "Selection", "connect"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from timedb.client import client

    return getattr(client, name)
