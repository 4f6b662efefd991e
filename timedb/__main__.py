"""``python -m timedb``: the command line."""

from timedb.cli import run

if __name__ == "__main__":
    run()
