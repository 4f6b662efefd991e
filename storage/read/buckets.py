"""A read of one bucket: its files, its filters, and how its answer is made of them, chosen when the read is planned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import polars as pl

from timedb.contract.wire import ReadCommand
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.store import Store
from timedb.storage.measures.relative import window_of, within_cut_off
from timedb.storage.read.first_versions import Uploaded, counted
from timedb.storage.read.parts import UNKNOWN
from timedb.storage.read.recipes import WINNING, Recipe, recipe_for
from timedb.storage.rows import views
from timedb.storage.rows.orders import POINT
from timedb.storage.rows.scan import RowSelection, scan_selected

__all__ = ["BucketRead", "rows_of"]

F = TypeVar("F", pl.LazyFrame, pl.DataFrame)


@dataclass(frozen=True)
class BucketRead:
    """A read of one bucket.

    Attributes:
        read: What is read.
        bucket: The bucket.
        files: Those that its answer needs, one at least; mixed ones hold rows of other buckets, too.
        selection: The filters, with those of the series that lie in the bucket, and with ``as_of`` only where it
            leaves something out.
        recipe: How the answer is made.
        uploaded: When each run was uploaded.
        slice_rows: How many rows a part of such a read has, about (``timedb.storage.read.slicing``); 0: it is whole.
    """

    read: ReadCommand
    bucket: str
    files: Sequence[DataFile]
    selection: RowSelection
    recipe: Recipe
    uploaded: Uploaded
    slice_rows: int = 0

    @classmethod
    def plan(
        cls, read: ReadCommand, bucket: str, live: Sequence[DataFile], selection: RowSelection, uploaded: Uploaded
    ) -> BucketRead | None:
        """Choose how a bucket is read: each for itself, for one may be settled, another not.

        Args:
            read: What is read.
            bucket: The bucket.
            live: Its files that can hold rows of the selection.
            selection: The filters.
            uploaded: When each run was uploaded.

        Returns:
            None where no file is needed.
        """
        recipe = recipe_for(read, selection, _of_tiers(live, ("fresh",)))
        files = _of_tiers(live, recipe.tiers)
        return cls(read, bucket, files, selection, recipe, uploaded) if files else None

    def narrowed(self, selection: RowSelection, slice_rows: int = 0) -> BucketRead | None:
        """The read of fewer rows of the bucket; None where no file holds any.

        Args:
            selection: Filters that leave out more; of each point all rows or none.
            slice_rows: How many rows it has, about, where it is a slice.
        """
        files = [file for file in self.files if selection.may_hold(file)]
        return replace(self, selection=selection, files=files, slice_rows=slice_rows) if files else None

    @property
    def is_stored(self) -> bool:
        """Whether every row of the files that passes the filters is a row of the answer."""
        return self.recipe.view is None and not self._is_more

    @property
    def is_of_uploads(self) -> bool:
        """Whether the answer is the winner of each point, all rows being of uploads."""
        return self.recipe.view is views.winners and not self._is_more

    @property
    def is_last_of_settled(self) -> bool:
        """Whether the last row of each series is among the last rows of the settled files and the fresh rows.

        It is where nothing bounds the winners, no fresh row withdraws or corrects one, and no file reaches beyond the
        valid_times that are asked for.
        """
        winning = self.recipe.tiers == WINNING and self.recipe.view is not views.flat
        return winning and self.selection.start_known is None and all(map(self.selection.ends_after, self.files))

    @property
    def _is_more(self) -> bool:
        read = self.read
        picks = read.view == "latest" or read.newest_run or read.numbers_revisions
        return picks or read.has_cut_off or read.corrections != "all"

    @property
    def rows(self) -> int:
        """How many rows the answer has, where the files say so; never an estimate, else :data:`UNKNOWN`."""
        shared = any(self.selection.bucket_to_pick(file) is not None for file in self.files)
        return rows_of(self.files) if self.is_whole and not shared else UNKNOWN

    @property
    def is_whole(self) -> bool:
        """Whether every row that its files have of the bucket is a row of the answer."""
        whole = RowSelection(bucket=self.bucket)
        cut = self.read.resample is not None or self.read.last is not None
        return self.is_stored and not cut and self.selection == whole

    def files_of(self, tiers: Collection[str]) -> list[DataFile]:
        """The files of some tiers."""
        return _of_tiers(self.files, tiers)

    def scan(self, store: Store, tiers: Collection[str]) -> pl.LazyFrame:
        """The rows of some tiers that pass the filters, in no particular order.

        Args:
            store: The folder of the values table.
            tiers: The tiers.
        """
        rows = scan_selected(store, self.files_of(tiers), self.selection).filter(*within_cut_off(self.read))
        return counted(rows, self.read, self.selection.end_known, self.uploaded)

    def answer(self, rows: Callable[[Collection[str]], F], columns: Sequence[str]) -> F:
        """The rows of the answer, in no particular order.

        Args:
            rows: The rows of some tiers that pass the filters, as :meth:`scan` gives them, collected or not.
            columns: The columns that they have.
        """
        found = self._view(rows, columns)
        if self.read.newest_run:
            found = views.of_newest_run(found, window_of(self.read))
        return views.last(found) if self.read.view == "latest" else found

    def _view(self, rows: Callable[[Collection[str]], F], columns: Sequence[str]) -> F:
        view, settled = self.recipe.view, self.recipe.settled
        if self.read.numbers_revisions:
            all_rows = views.numbered(rows(self.recipe.tiers))
            return all_rows if view is None else view(all_rows)
        if view is None:
            return rows(self.recipe.tiers)
        if not settled or not self.files_of(settled):
            found: F = view(rows(self.recipe.tiers))
            return found
        # Decided anew at the points that fresh rows touch, where settled rows beneath may win; elsewhere it is settled.
        fresh: F = rows(("fresh",))
        below: list[F] = [rows(settled)]
        beneath = [tier for tier in self.recipe.tiers if tier != "fresh" and tier not in settled]
        if self.files_of(beneath):
            below.append(rows(beneath))
        touched = views.points(fresh)
        rivals: list[F] = [part.join(touched, on=POINT, how="semi", nulls_equal=True) for part in below]
        untouched = below[0].join(touched, on=POINT, how="anti", nulls_equal=True)
        rivals.append(fresh)
        anew: F = view(pl.concat(rivals)).select(columns)
        parts: list[F] = [anew, untouched.select(columns)]
        return pl.concat(parts)


def rows_of(files: Iterable[DataFile]) -> int:
    """How many rows some files have, each counted once; :data:`UNKNOWN` where one does not say."""
    counts = {file.path: file.rows for file in files}.values()
    return UNKNOWN if min(counts, default=0) < 0 else sum(counts)


def _of_tiers(files: Sequence[DataFile], tiers: Collection[str]) -> list[DataFile]:
    return [file for file in files if file.partition["tier"] in tiers]
