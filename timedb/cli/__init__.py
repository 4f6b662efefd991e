"""The command line ``timedb``."""

from timedb.cli.main import app, main, run

__all__ = ["app", "main", "run"]
