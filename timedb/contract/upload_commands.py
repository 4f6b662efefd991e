"""What a client says of the runs that it writes: one a call, or many over one stream."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from timedb.contract.wire_fields import Command, Name, RunParams, Text, Time, WireModel, check_range

__all__ = [
    "AppendCommand",
    "AppendEnd",
    "AppendedRun",
    "AppendedUpload",
    "CommitMarker",
    "CorrectCommand",
    "UploadCommand",
    "UploadFields",
]


class UploadFields(WireModel):
    """What is said of a run, whichever way it comes."""

    run_id: Name | None = None
    workflow_id: Name = "flight-upload"
    run_start_time: Time | None = None
    run_finish_time: Time | None = None
    known_time: Time | None = None
    run_params: RunParams | None = None
    rows: Annotated[int, Field(ge=0)] | None = None
    create_series: bool = True
    skip_unchanged: bool = False
    series_descriptions: dict[Name, Text] | None = None
    unit: Name | None = None

    @model_validator(mode="after")
    def _finish_after_start(self) -> Self:
        check_range(self.run_start_time, self.run_finish_time, ("run_start_time", "run_finish_time"))
        return self


class UploadCommand(Command, UploadFields):
    """``do_put`` descriptor: one run of values. ``rows`` or a final :class:`CommitMarker` must confirm the count."""

    op: Literal["upload"] = "upload"


class CommitMarker(WireModel):
    """The last metadata message of an upload: the client's word that it sent all ``rows`` rows."""

    commit: Literal[True]
    rows: Annotated[int, Field(ge=0)]


class CorrectCommand(Command):
    """``do_put`` descriptor: corrections as a table, confirmed as an upload is.

    ``update_id`` makes a retry answer as the first time; ``create`` makes rows that are not there, where their run is.
    """

    op: Literal["correct"] = "correct"
    update_id: Name | None = None
    create: bool = False
    rows: Annotated[int, Field(ge=0)] | None = None


class AppendCommand(Command):
    """``do_exchange`` descriptor: each message that follows is a run, or a part of one (:class:`AppendedRun`)."""

    op: Literal["append"] = "append"


class AppendedUpload(UploadFields):
    """What is said of a run among others of its stream: as of any upload, but that it must have a name."""

    run_id: Name


class AppendedRun(WireModel):
    """The metadata of a batch in a stream of runs.

    ``seq`` numbers the runs of a stream, ascending; ``upload`` stands on the first batch of a run, ``more`` on all but
    the last.
    """

    seq: Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
    upload: AppendedUpload | None = None
    more: bool = False


class AppendEnd(WireModel):
    """The metadata of the last message of a stream of runs, which has no rows: the server answers what came, and ends.

    For clients that read on a thread of their own: pyarrow may not close one half of a stream while the other one ends.
    """

    end: Literal[True]
