"""Which runs a read is about: those that it names, and those of a workflow, as of the snapshot that it is made on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

import polars as pl

from timedb.storage.delta.log import Snapshot
from timedb.storage.read.first_versions import Uploaded

__all__ = ["RunsSeen"]


@dataclass(frozen=True)
class RunsSeen:
    """The runs of a tenant, for whoever reads.

    Attributes:
        known: All runs of a snapshot of the values and maybe later ones: columns of the runs table.
        created_by: Whose runs the caller may see; None: all.
    """

    known: Callable[[Snapshot], pl.LazyFrame]
    created_by: str | None = None

    def named(
        self, snapshot: Snapshot, run_ids: Collection[str] | None, workflow_id: str | None
    ) -> Collection[str] | None:
        """The ids of the runs that a read is about; None: all. A run or workflow that there is not wrote nothing.

        Args:
            snapshot: Of the values table.
            run_ids: Those that the read names; None: it names none.
            workflow_id: The workflow whose runs it is about; None: any.
        """
        if workflow_id is None:
            return None if run_ids is None else set(run_ids)
        runs = self.known(snapshot).filter(pl.col("workflow_id") == workflow_id)
        if self.created_by is not None:
            runs = runs.filter(pl.col("created_by") == self.created_by)
        found = set(runs.select("run_id").collect(engine="in-memory")["run_id"])
        return found if run_ids is None else found.intersection(run_ids)

    def uploaded(self, snapshot: Snapshot) -> Uploaded:
        """When each run was uploaded, asked for once, when it is first needed.

        Args:
            snapshot: Of the values table.
        """

        @cache
        def found() -> pl.DataFrame:
            runs = self.known(snapshot).select("run_id", uploaded="change_time")
            return runs.collect(engine="in-memory")

        return found
