"""The lake: Delta tables, catalog, commit lane, views. Knows nothing of servers."""

from storage.lake import Lake
from storage.moment import Moment
from storage.reading import ReadPart, ReadPlan
from storage.tenant import Plan, Tenant
from storage.uploads import Upload

__all__ = ["Lake", "Moment", "Plan", "ReadPart", "ReadPlan", "Tenant", "Upload"]
