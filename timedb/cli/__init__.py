"""The command line ``timedb``."""

from timedb.cli.main import app, main

__all__ = ["app", "main"]
