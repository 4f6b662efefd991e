"""How much memory there is for this process, and how much of it is taken, as the kernel says."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

__all__ = ["available_bytes", "resident_bytes"]

_GROUPS = Path("/sys/fs/cgroup")
_PAGE = resource.getpagesize()
_UNKNOWN = 4 << 30


def available_bytes(groups: Path = _GROUPS, process: Path = Path("/proc/self")) -> int:
    """The least of what the machine has and what the control groups (v2 and v1) and limits of this process allow.

    Args:
        groups: Where the control groups are.
        process: What the kernel says of this process.
    """
    limits = [*_of_groups(groups, process), _of_machine()]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    return min(limits)


def resident_bytes() -> int:
    """What of the memory this process has taken, its files not counted."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:  # asked for with each call
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):  # another system than Linux
        return 0
    return (int(resident) - int(shared)) * _PAGE


def _of_groups(groups: Path, process: Path) -> Iterator[int]:
    lines: list[str] = []
    with suppress(OSError):
        lines = (process / "cgroup").read_text().splitlines()
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" and not controllers:
            roots, file = [groups, groups / "unified"], "memory.max"
        elif "memory" in controllers.split(","):
            roots, file = [groups / "memory"], "memory.limit_in_bytes"
        else:
            continue
        path = PurePosixPath(name.lstrip("/"))
        for root in roots:
            # Each group around it has a limit, too; in a container the path may be one of outside.
            for folder in (path, *path.parents):
                with suppress(OSError, ValueError):  # "max" is no limit
                    yield int((root / folder / file).read_text())


def _of_machine() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * _PAGE
    except (OSError, ValueError):
        return _UNKNOWN
