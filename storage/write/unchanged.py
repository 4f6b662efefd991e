"""``skip_unchanged``: rows that only repeat what was known before them are not stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from timedb.storage.commit.writes import CommitContext
from timedb.storage.delta.table import Table
from timedb.storage.rows import views
from timedb.storage.rows.orders import CONTENT, POINT, WINNER
from timedb.storage.rows.scan import RowSelection, live_files, scan

__all__ = ["UnchangedFilter"]


@dataclass(frozen=True)
class UnchangedFilter:
    """Drops the rows of an upload that equal their immediate predecessor by known_time, stored or in the upload."""

    table: Table
    bucket_digits: int | None

    def __call__(self, context: CommitContext, rows: pl.DataFrame) -> Sequence[int]:
        """Where the rows stand that say something new.

        Args:
            context: Of the commit that the upload is part of.
            rows: The upload's rows with ``series_id``; known_time is filled.
        """
        if not rows.height:
            return []
        stored = self._stored(context, rows).with_columns(position=pl.lit(None, dtype=pl.Int64))
        columns = [*POINT, "known_time", *CONTENT, "position"]
        both = pl.concat(
            [stored.select(columns), rows.with_row_index("position").cast({"position": pl.Int64}).select(columns)]
        )
        # At one known_time the stored rows come first: the upload's change_time will be the greater.
        both = both.with_columns(new=pl.col("position").is_not_null()).sort(
            *POINT, "known_time", "new", maintain_order=True
        )
        kept = both.filter(pl.col("new") & ~views.repeats_last())["position"]
        return kept.sort().to_list()

    def _stored(self, context: CommitContext, rows: pl.DataFrame) -> pl.DataFrame:
        selection = RowSelection(series_ids=set(rows["series_id"].unique()))
        files = live_files(context.snapshot, selection, self.bucket_digits)
        first, last = rows["valid_time"].min(), rows["valid_time"].max()
        stored = scan(self.table.store, files, [*selection.predicates(), pl.col("valid_time").is_between(first, last)])
        return views.overlapping(stored.collect(engine="in-memory")).sort(WINNER.by)
