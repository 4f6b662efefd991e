"""Forecasts against what came: what is compared with what, and which figures are asked for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from timedb.contract.durations import Duration, parse_duration
from timedb.contract.quantiles import PROBABILITY_COLUMNS
from timedb.contract.selecting import Corrections, Relative, Selecting, check_by_cutoff
from timedb.contract.wire_fields import Command, Length, Name, SelectedLabels

__all__ = ["AccuracyCommand", "AccuracyTicket"]


def _read_actual_view(value: object) -> object:
    if value in ("flat", "first") or isinstance(value, Duration):
        return value
    try:
        return parse_duration(value)  # type: ignore[arg-type] # what is neither text nor a timedelta is refused, too
    except (ValueError, AttributeError):
        raise ValueError("is neither flat, nor first, nor a lead time of the actual value such as -P45D") from None


ActualView = Annotated[
    Literal["flat", "first"] | Duration,
    BeforeValidator(_read_actual_view, json_schema_input_type=str),
    PlainSerializer(str, when_used="json"),
]


class AccuracyCommand(Selecting):
    """Forecasts against the values of an actuals series, by lead time; :class:`AccuracyTicket` adds the ``op``.

    Every revision that the selection leaves is compared with the value of the actuals series at the same
    (valid_time, valid_time_end). Its lead time, ``valid_time - known_time``, falls into a bucket ``horizon`` long.
    ``relative``, ``corrections`` and ``forecast_view`` are about the forecasts, as the bounds of known_time and the
    runs are. With ``match_labels`` each forecast is compared with the actual, and the reference, that agrees with it in
    these labels.
    """

    actual_id: str | None = None
    actual_key: str | None = None
    actual_labels: SelectedLabels | None = None
    match_labels: Annotated[list[Name], Field(min_length=1)] | None = None
    actual_view: ActualView = "flat"
    forecast_view: Literal["overlapping", "flat", "first"] = "overlapping"
    relative: Relative | None = None
    corrections: Corrections = "all"
    reference_key: str | None = None
    reference_labels: SelectedLabels | None = None
    horizon: Length

    @model_validator(mode="after")
    def _names_actuals_and_horizon(self) -> Self:
        if (self.actual_id is None) == (self.actual_key is None):
            raise ValueError("needs either actual_id or actual_key, to say which series holds the actual values")
        if self.horizon.sign <= 0 or self.horizon.months:
            raise ValueError(f"horizon: {self.horizon} is not a length of at least a microsecond in days or hours")
        if isinstance(self.actual_view, Duration) and self.actual_view.months:
            raise ValueError(
                f"actual_view: {self.actual_view} has months, which have no fixed length; use days or hours"
            )
        return self

    @model_validator(mode="after")
    def _fields_go_together(self) -> Self:
        check_by_cutoff(self.corrections, relative=self.relative, end_known=self.end_known)
        for name in ("actual_labels", "match_labels"):
            if self.actual_key is None and getattr(self, name) is not None:
                raise ValueError(f"{name}: goes with actual_key; actual_id already says which series")
        if self.reference_key is None and self.reference_labels is not None:
            raise ValueError("reference_labels: goes with reference_key, which is missing")
        for place, label in enumerate(self.match_labels or ()):
            if label in PROBABILITY_COLUMNS:
                raise ValueError(
                    f"match_labels.{place}: {label!a} tells the siblings of one forecast apart; actual values have none"
                )
        return self


class AccuracyTicket(Command, AccuracyCommand):
    """``do_get`` ticket and ``get_flight_info`` command of accuracy figures; as a ``ReadTicket``.

    A ``bucket`` that is empty stands for the figures of siblings, which lie in several.
    """

    op: Literal["accuracy"] = "accuracy"
    bucket: str | None = None
    table_version: Annotated[int, Field(ge=0)] | None = None
