"""The answer of one bucket, put together from no more tiers than it needs.

What compaction has found out saves work: ``current`` holds the flat winners of all settled rows, ``current`` and
``revised`` hold each revision once. Only points that a fresh file touches are decided anew. The answers are those of
``views`` over all rows; nothing here may change them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import polars as pl

from timedb.contract.wire import ReadCommand
from timedb.storage.delta.log import DataFile
from timedb.storage.delta.parquet import may_hold_corrections
from timedb.storage.delta.store import Store
from timedb.storage.measures.relative import known_by_cut_off
from timedb.storage.read.latest import LastRows, can_use_last_rows, latest, latest_over
from timedb.storage.rows import views
from timedb.storage.rows.scan import Selection, scan
from timedb.storage.tables.schemas import TIERS, VALUES_DATA

__all__ = ["answer", "is_flat_of_uploads", "is_plain", "settled_and_fresh", "tiers_for"]

_POINT = list(views.POINT)
_DECISIVE = {*views.REVISION, "change_time", "retracted"}


def tiers_for(read: ReadCommand, selection: Selection, fresh: Collection[DataFile]) -> Collection[str]:
    """The tiers that can hold rows of an answer (docs/decisions/0042-four-tiers.md).

    Args:
        read: The read.
        selection: Its filters, with ``as_of`` only where it leaves something out.
        fresh: The fresh files of the bucket that is read.
    """
    if read.all_versions or read.view == "changes" or selection.as_of is not None:
        return TIERS
    if read.view == "overlapping" or _bounded_above(read, selection) or any(map(_may_hold_retractions, fresh)):
        return ("fresh", "current", "revised")
    return ("fresh", "current")


def is_plain(read: ReadCommand, selection: Selection, files: Sequence[DataFile]) -> bool:
    """Whether every row of the files that passes the filters is a row of the answer."""
    if read.view == "changes":
        return True
    if _cut_off(read) or read.view == "latest":
        return False
    if read.all_versions:
        return read.view == "overlapping"
    fresh = _fresh(files)
    if selection.as_of is not None or any(map(may_hold_corrections, fresh)):
        return False
    return read.view == "overlapping" or not (fresh or _bounded_above(read, selection))


def is_flat_of_uploads(read: ReadCommand, selection: Selection, files: Sequence[DataFile]) -> bool:
    """Whether the answer is the row known last of each point, all rows being of uploads."""
    return (
        read.view == "flat"
        and not read.all_versions
        and not _cut_off(read)
        and selection.as_of is None
        and not any(map(may_hold_corrections, _fresh(files)))
    )


def settled_and_fresh(
    read: ReadCommand, selection: Selection, files: Sequence[DataFile]
) -> tuple[Sequence[DataFile], Sequence[DataFile]]:
    """The files that hold the winners of all settled points, and those whose rows compete with them."""
    if _bounded_above(read, selection):
        return (), files
    return [file for file in files if file.partition["tier"] == "current"], _fresh(files)


def answer(
    read: ReadCommand,
    selection: Selection,
    store: Store,
    files: Sequence[DataFile],
    columns: Collection[str],
    last_rows: LastRows,
) -> pl.DataFrame:
    """The rows of a read from the files of one bucket, in no particular order.

    Args:
        read: The read.
        selection: Its filters, with ``as_of`` only where it leaves something out.
        store: The folder of the values table.
        files: The files of the tiers that :func:`tiers_for` names.
        columns: Stored columns that are wanted; the answer may have more.
        last_rows: The last rows of settled files.
    """
    if read.view == "latest":
        return _latest(read, selection, store, files, columns, last_rows)
    predicates = selection.predicates()
    plain = is_plain(read, selection, files)
    wanted = [name for name in VALUES_DATA.names if name in columns or (name in _DECISIVE and not plain)]

    def rows(*tiers: str) -> pl.DataFrame:
        found = scan(store, [file for file in files if file.partition["tier"] in tiers], predicates)
        return known_by_cut_off(found, read).select(wanted).collect(engine="in-memory")

    fresh = _fresh(files)
    if plain:
        return rows(*TIERS)
    if read.all_versions:
        return rows(*TIERS) if read.view == "overlapping" else views.flat_chains(rows(*TIERS))
    if selection.as_of is not None:
        return views.overlapping(rows(*TIERS)) if read.view == "overlapping" else views.flat(rows(*TIERS))
    if not any(map(may_hold_corrections, fresh)):
        # Rows of uploads have keys of their own, so every row here is the only version of its revision.
        if read.view == "overlapping":
            return rows("fresh", "current", "revised")
        if _bounded_above(read, selection):
            return views.winners(rows("fresh", "current", "revised"))
        return _over_settled(views.winners, rows("fresh"), rows("current"), None)
    if read.view == "overlapping":
        return _over_settled(views.overlapping, rows("fresh"), rows("current", "revised"), None)
    if _bounded_above(read, selection):
        return views.flat(rows("fresh", "current", "revised"))
    return _over_settled(views.flat, rows("fresh"), rows("current"), rows("revised"))


def _latest(
    read: ReadCommand,
    selection: Selection,
    store: Store,
    files: Sequence[DataFile],
    columns: Collection[str],
    last_rows: LastRows,
) -> pl.DataFrame:
    if not can_use_last_rows(read, selection, files):
        flat = read.model_copy(update={"view": "flat"})
        wanted = {*columns, *_DECISIVE}
        return latest(answer(flat, selection, store, files, wanted, last_rows))
    settled = last_rows.read([file for file in files if file.partition["tier"] == "current"])
    found = _fresh(files)
    fresh = [scan(store, found, selection.predicates()).collect(engine="in-memory")] if found or not settled else []
    return latest_over(fresh, settled, selection)


def _fresh(files: Iterable[DataFile]) -> list[DataFile]:
    return [file for file in files if file.partition["tier"] == "fresh"]


def _over_settled(
    view: views.View, fresh: pl.DataFrame, settled: pl.DataFrame, beneath: pl.DataFrame | None
) -> pl.DataFrame:
    """The view decided anew at the points that fresh rows touch; the settled rows elsewhere.

    Args:
        view: The view.
        fresh: Fresh rows.
        settled: Rows that are the answer where nothing is fresh.
        beneath: Rows that can win where a settled row is withdrawn.
    """
    below = [settled] if beneath is None else [settled, beneath]
    if not any(rows.height for rows in below):
        return view(fresh)
    touched = views.points(fresh)
    rivals = [rows.join(touched, on=_POINT, how="semi", nulls_equal=True) for rows in below]
    untouched = settled.join(touched, on=_POINT, how="anti", nulls_equal=True)
    return pl.concat([view(pl.concat([fresh, *rivals])), untouched])


def _bounded_above(read: ReadCommand, selection: Selection) -> bool:
    return selection.end_known is not None or _cut_off(read)


def _cut_off(read: ReadCommand) -> bool:
    return read.relative is not None or read.lead_time is not None


def _may_hold_retractions(file: DataFile) -> bool:
    return may_hold_corrections(file) and file.null_count.get("retracted", -1) != file.rows
