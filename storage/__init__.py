"""The lake: Delta tables, catalog, commit lane, views. Knows nothing of servers."""

from storage.lake import Lake
from storage.reading import ReadPart, ReadPlan
from storage.tenant import Tenant
from storage.uploads import Upload

__all__ = ["Lake", "ReadPart", "ReadPlan", "Tenant", "Upload"]
