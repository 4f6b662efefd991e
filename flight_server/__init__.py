"""Arrow Flight over a lake."""

from timedb.flight_server.service import FlightService, start_flight_server

__all__ = ["FlightService", "start_flight_server"]
