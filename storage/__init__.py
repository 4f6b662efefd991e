"""The lake: Delta tables, catalog, commit lane, views. Knows nothing of servers."""

from timedb.storage.lake import Lake
from timedb.storage.memory.budget import Memory
from timedb.storage.memory.server import MemoryOfServer
from timedb.storage.read.accuracy import AccuracyPart
from timedb.storage.read.following import Follower
from timedb.storage.read.parts import ReadPart
from timedb.storage.read.reading import ReadPlan
from timedb.storage.read.tenant_snapshot import TenantSnapshot
from timedb.storage.tenant import Plan, Tenant
from timedb.storage.write.appends import Appends, ArrivingRun
from timedb.storage.write.uploads import Upload

__all__ = [
    "AccuracyPart",
    "Appends",
    "ArrivingRun",
    "Follower",
    "Lake",
    "Memory",
    "MemoryOfServer",
    "Plan",
    "ReadPart",
    "ReadPlan",
    "Tenant",
    "TenantSnapshot",
    "Upload",
]
