"""``python -m timedb``: the command line."""

from timedb.cli import main

if __name__ == "__main__":
    main()
