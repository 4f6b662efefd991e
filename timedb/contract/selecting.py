"""Which rows a call is about, and the cut-offs by which they had to be known."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from timedb.contract.durations import Duration
from timedb.contract.wire_fields import (
    Length,
    Name,
    SelectedLabels,
    Time,
    TimeOfDay,
    WireModel,
    check_range,
)

__all__ = ["Corrections", "Filtering", "Relative", "Selecting", "check_by_cutoff", "check_one_length"]

Corrections = Literal["all", "by_cutoff", "none"]
Compression = Literal["lz4", "zstd"]
Identifiers = Literal["dictionary", "plain"]


def check_one_length(name: str, length: Duration) -> None:
    """Refuse a length that is not longer than nothing, or mixes months, days and hours.

    Raises:
        ValueError: names the field.
    """
    if length.sign <= 0:
        raise ValueError(f"{name} {length} is not longer than nothing")
    if sum(part != 0 for part in (length.months, length.days, length.micros)) > 1:
        raise ValueError(f"{name} {length} mixes months, days and hours; give one of them")


class Relative(WireModel):
    """Per window of valid time, only what was known by a cut-off at or before the window's start.

    Either the daily gate: windows are local days, the cut-off is ``time_of_day`` on the day ``days_ahead`` before.
    Or the general form: windows of ``window_length`` that follow each other from ``start_window`` in both directions,
    the cut-off ``issue_offset`` (zero or negative) from each window's start. Calendar parts of a length (days, months)
    are counted in ``time_zone``; it is UTC in the general form unless it is given.
    """

    days_ahead: Annotated[int, Field(ge=0, le=3650)] = 1
    time_of_day: TimeOfDay = "10:00"
    time_zone: Name | None = None
    window_length: Length | None = None
    issue_offset: Length | None = None
    start_window: Time | None = None

    @model_validator(mode="after")
    def _is_one_of_two_forms(self) -> Self:
        general = {"window_length", "issue_offset", "start_window"}
        daily = {"days_ahead", "time_of_day"} & self.model_fields_set
        if self.is_general:
            if daily:
                raise ValueError(f"{sorted(daily)[0]} belongs to the daily gate, window_length to the general form")
            if missing := sorted(name for name in general if getattr(self, name) is None):
                raise ValueError(f"{missing[0]} is missing; the general form needs {', '.join(sorted(general))}")
            self._check_windows()
        elif self.time_zone is None:
            raise ValueError("time_zone is missing; the daily gate needs it")
        elif self.days_ahead == 0 and self.time_of_day.replace(":", "").strip("0"):
            raise ValueError(
                f"time_of_day {self.time_of_day} with days_ahead 0 is a cut-off inside its own window; "
                "a value could be known after its time"
            )
        return self

    def _check_windows(self) -> None:
        if self.window_length is not None:
            check_one_length("window_length", self.window_length)
        if self.issue_offset is not None and self.issue_offset.sign > 0:
            raise ValueError(
                f"issue_offset {self.issue_offset} is a cut-off inside its own window; zero or less is not"
            )

    @property
    def is_general(self) -> bool:
        """Whether it is the general form, not the daily gate."""
        return any(value is not None for value in (self.window_length, self.issue_offset, self.start_window))


class Filtering(WireModel):
    """Which rows a call is about: series, bounds of valid_time and known_time, runs.

    ``compression`` is that of the buffers on the wire.
    """

    series_ids: list[str] | None = None
    series_keys: list[str] | None = None
    labels: SelectedLabels | None = None
    start_valid: Time | None = None
    end_valid: Time | None = None
    start_known: Time | None = None
    end_known: Time | None = None
    run_ids: list[str] | None = None
    workflow_id: Name | None = None
    compression: Compression | None = None

    @model_validator(mode="after")
    def _ranges_run_forward(self) -> Self:
        check_range(self.start_valid, self.end_valid, ("start_valid", "end_valid"))
        check_range(self.start_known, self.end_known, ("start_known", "end_known"))
        return self


class Selecting(Filtering):
    """Which rows a read is about, and as of when: a change_time, or the token of an earlier answer.

    ``identifiers`` says whether texts come as dictionaries.
    """

    as_of: Time | None = None
    token: str | None = None
    identifiers: Identifiers = "dictionary"


def check_by_cutoff(corrections: Corrections, **cut_offs: object) -> None:
    """Refuse ``corrections: by_cutoff`` without a cut-off.

    Args:
        corrections: Which corrections count.
        **cut_offs: Those that the call can have, by their names; None: it has not.

    Raises:
        ValueError: it has none.
    """
    if corrections == "by_cutoff" and all(cut_off is None for cut_off in cut_offs.values()):
        *names, last = cut_offs
        raise ValueError(f"corrections: by_cutoff needs a cut-off: {', '.join(names)} or {last}")
