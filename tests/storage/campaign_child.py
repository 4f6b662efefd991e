"""Does one operation of the campaign in a process that is killed amid it: ``FOLDER OPERATION N``.

Prints the operation's answer as JSON where the N-th file operation never comes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.storage.disk import Disk, Fault
from tests.storage.lakes import open_tenant
from tests.storage.operations import operations
from timedb.storage import Lake


def main(folder: str, name: str, at: str) -> None:
    """Open the lake, arm the fault, do it."""
    operation = next(one for one in operations() if one.name == name)
    disk = Disk(Path(folder), fault=Fault("kill", int(at)))
    if operation.from_nothing:
        with disk.watched():
            answer = operation.run(open_tenant(Lake.open(folder, operation.lake_settings())))
    else:
        tenant = open_tenant(Lake.open(folder, operation.lake_settings()))
        with disk.watched():
            answer = operation.run(tenant)
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
