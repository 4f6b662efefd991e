"""The REST door: FastAPI over the Flight client. ``create_app`` builds it, ``Connections`` limits its peers."""

from timedb.rest_gateway.app import create_app
from timedb.rest_gateway.http.connections import Connections

__all__ = ["Connections", "create_app"]
