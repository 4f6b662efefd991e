"""Files as runs: prepared, sent, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timedb.client.frames import spooled
from timedb.client.receipt import Receipt
from timedb.contract.errors import NotFound
from timedb.contract.times import format_time
from timedb.contract.wire import GetRun, ListSeries
from timedb.layouts.layout import Layout
from timedb.layouts.prepared import Prepared, run_fields

if TYPE_CHECKING:
    from timedb.client.client import Client
    from timedb.client.progress import Progress

__all__ = ["FileUpload", "upload_prepared"]

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


def upload_prepared(
    client: Client, prepared: Prepared, layout: Layout, run: Mapping[str, Any], file: str, progress: Progress
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
    fields = run_fields(prepared, run, file, layout)
    there_already = _has_run(client, fields["run_id"])
    before = set() if there_already else _series_ids(client, prepared)
    receipt = client.upload(spooled(prepared.reader), progress=progress, **fields)
    made = 0 if there_already else sum(each["series_id"] not in before for each in receipt.series)
    known = prepared.known.texts() or [prepared.known_at or format_time(receipt.change_time)] * 2
    return FileUpload(receipt, there_already, prepared.dropped, made, prepared.valid.texts(), known)


def _has_run(client: Client, run_id: str) -> bool:
    try:
        client.call("get_run", GetRun(run_id=run_id))
    except NotFound:
        return False
    return True


def _series_ids(client: Client, prepared: Prepared) -> set[str]:
    """The ids of the series that are there, of those names."""
    names = {name for name, _ in prepared.series}
    asked = [ListSeries(name=name) for name in names] if len(names) <= _NAMES_ASKED else [ListSeries()]
    found = [client.call("list_series", each)["series"] for each in asked]
    return {each["series_id"] for some in found for each in some}
