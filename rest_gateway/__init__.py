"""The REST door: FastAPI over the Flight client. ``create_app(flight_url)`` builds it."""

from timedb.rest_gateway.app import create_app

__all__ = ["create_app"]
