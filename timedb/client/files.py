"""Files as runs: prepared, sent, and what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timedb.client.frames import spooled
from timedb.client.receipt import Receipt
from timedb.contract.errors import NotFound
from timedb.contract.times import format_time
from timedb.contract.wire import GetRun, ListSeries, WireModel

if TYPE_CHECKING:
    from timedb.client.progress import Progress
    from timedb.layouts.layout import Layout
    from timedb.layouts.prepared import Prepared

__all__ = ["FileCalls", "FileUpload", "upload_prepared"]

_RUN = ("run_id", "run_params", "workflow_id", "unit", "create_series", "skip_unchanged")

_NAMES_ASKED = 20


@dataclass(frozen=True, slots=True)
class FileUpload:
    """What came of the upload of a file.

    Attributes:
        receipt: The receipt of its run.
        already_loaded: Whether the run was there before, so that nothing was added.
        dropped: How many rows were left out, as they said once more what another row says.
        series_made: How many series it made.
        valid_time: The first and the last valid_time, RFC 3339; None: it has none.
        known_time: The first and the last known_time, RFC 3339.
    """

    receipt: Receipt
    already_loaded: bool
    dropped: int
    series_made: int
    valid_time: list[str] | None
    known_time: list[str] | None

    @property
    def run_id(self) -> str:
        """The run that the values belong to."""
        return self.receipt.run_id

    @property
    def rows(self) -> int:
        """Rows of the run."""
        return self.receipt.rows

    def shown(self, *, whole: bool) -> dict[str, Any]:
        """It as JSON values.

        Args:
            whole: With every series.
        """
        receipt = self.receipt
        shown: dict[str, Any] = {"run_id": receipt.run_id, "rows": receipt.rows, "skipped": receipt.skipped}
        if self.already_loaded:
            shown["already_loaded"] = True
        if self.dropped:
            shown["dropped"] = self.dropped
        if receipt.withdrawn_rows:
            shown["withdrawn_rows"] = receipt.withdrawn_rows
        shown["series"] = receipt.series if whole else len(receipt.series)
        shown |= {"series_made": self.series_made, "series_found": len(receipt.series) - self.series_made}
        shown |= {"valid_time": self.valid_time, "known_time": self.known_time}
        shown["change_time"] = receipt.change_time.isoformat()
        return shown | ({"table_version": receipt.table_version} if whole else {})


class FileCalls(ABC):
    """The part of :class:`~timedb.client.Client` that is about files."""

    @abstractmethod
    def call(self, action: str, message: WireModel) -> dict[str, Any]:
        """Send an action; its answer."""

    upload: Callable[..., Receipt]

    def upload_file(
        self, /, path: str | Path, *, recipe: str | Path | None = None, progress: Progress = False, **options: Any
    ) -> FileUpload:
        """Upload a file as one run: CSV, Parquet, Arrow, NDJSON, JSON or XLSX, as operators and spreadsheets write it.

        It is read whole and checked before anything is sent. Uploading the same file with the same options once more
        adds nothing, as its run_id is a digest of the run unless one is said.

        Args:
            path: The file; compressed ones (gzip, zstd, bzip2, lz4) are read as what they hold.
            recipe: A TOML file of options, or the name of a recipe that is shipped; ``options`` go first.
            progress: As of :meth:`upload`.
            **options: Those of ``timedb upload``, with ``_`` for ``-``: ``valid_time="Zeit"``, ``decimal=","``,
                ``time_zone="Europe/Berlin"``, ``wide=True``, ``label={"site": "Station"}``, ``ignore=["remark"]``; and
                of the run: ``run_id`` (may hold ``{file}``), ``run_params``, ``workflow_id``, ``unit``,
                ``create_series``, ``skip_unchanged``.

        Raises:
            InvalidRequest: names line, column, text and the option that helps; an option that does not exist.
            Conflict: the run_id is taken by a run with other content.

        Examples:
            >>> file = Path("prices.csv")
            >>> _ = file.write_text("Zeit;Preis\\n01.01.2025 00:00;1.234,5\\n01.01.2025 01:00;-0,5\\n")
            >>> german = {"time_format": "%d.%m.%Y %H:%M", "time_zone": "Europe/Berlin"}
            >>> german |= {"decimal": ",", "thousands": "."}
            >>> names = {"valid_time": "Zeit", "value": "Preis", "series": "price"}
            >>> done = client.upload_file(file, **names, **german, known_after="0h", unit="EUR/MWh")
            >>> done.rows, done.valid_time
            (2, ['2024-12-31T23:00:00.000000+00:00', '2025-01-01T00:00:00.000000+00:00'])
            >>> client.upload_file(file, **names, **german, known_after="0h", unit="EUR/MWh").already_loaded
            True
        """
        from timedb.layouts.layout import Layout, as_argument
        from timedb.layouts.opening import stem_of
        from timedb.layouts.prepared import prepare
        from timedb.layouts.recipe import load_recipe

        said = ({} if recipe is None else load_recipe(recipe, as_argument)) | options
        layout = Layout.of({name: value for name, value in said.items() if name not in _RUN}, as_argument)
        run = {name: said[name] for name in _RUN if name in said}
        with prepare(Path(path), layout) as prepared:
            return upload_prepared(self, prepared, layout, run, stem_of(Path(path)), progress)


def upload_prepared(
    client: FileCalls, prepared: Prepared, layout: Layout, run: Mapping[str, Any], file: str, progress: Progress
) -> FileUpload:
    """Send a file that was read.

    Args:
        client: To which service.
        prepared: The file.
        layout: Its options.
        run: ``run_id``, ``workflow_id``, ``run_params``, ``unit``, ``create_series``, ``skip_unchanged``, as said.
        file: Its name without endings.
        progress: As of an upload.
    """
    from timedb.layouts.prepared import run_fields

    fields = run_fields(prepared, run, file, layout)
    there_already = _has_run(client, fields["run_id"])
    before = set() if there_already else _series_ids(client, prepared)
    receipt = client.upload(spooled(prepared.reader), progress=progress, **fields)
    made = 0 if there_already else sum(each["series_id"] not in before for each in receipt.series)
    known = prepared.known.texts() or [prepared.known_at or format_time(receipt.change_time)] * 2
    return FileUpload(receipt, there_already, prepared.dropped, made, prepared.valid.texts(), known)


def _has_run(client: FileCalls, run_id: str) -> bool:
    try:
        client.call("get_run", GetRun(run_id=run_id))
    except NotFound:
        return False
    return True


def _series_ids(client: FileCalls, prepared: Prepared) -> set[str]:
    """The ids of the series that are there, of those names."""
    names = {name for name, _ in prepared.series}
    asked = [ListSeries(name=name) for name in names] if len(names) <= _NAMES_ASKED else [ListSeries()]
    found = [client.call("list_series", each)["series"] for each in asked]
    return {each["series_id"] for some in found for each in some}
