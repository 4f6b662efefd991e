"""The lake: Delta tables, catalog, commit lane, views. Knows nothing of servers."""

from storage.accuracy import AccuracyPart
from storage.lake import Lake
from storage.moment import Moment
from storage.parts import ReadPart
from storage.reading import ReadPlan
from storage.tenant import Plan, Tenant
from storage.uploads import Upload

__all__ = ["AccuracyPart", "Lake", "Moment", "Plan", "ReadPart", "ReadPlan", "Tenant", "Upload"]
