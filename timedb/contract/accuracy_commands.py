"""Forecasts against what came: what is compared with what, and which figures are asked for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from timedb.contract.selecting import Selecting
from timedb.contract.wire_fields import Command, Length

__all__ = ["AccuracyCommand", "AccuracyTicket"]


class AccuracyCommand(Selecting):
    """Forecasts against the values of an actuals series, by lead time; :class:`AccuracyTicket` adds the ``op``.

    Every revision that the selection leaves is compared with the flat value of the actuals series at the same
    (valid_time, valid_time_end). Its lead time, ``valid_time - known_time``, falls into a bucket ``horizon`` long.
    """

    actual_id: str | None = None
    actual_key: str | None = None
    horizon: Length

    @model_validator(mode="after")
    def _names_actuals_and_horizon(self) -> Self:
        if (self.actual_id is None) == (self.actual_key is None):
            raise ValueError("needs either actual_id or actual_key, to say which series holds the actual values")
        if self.horizon.sign <= 0 or self.horizon.months:
            raise ValueError(f"horizon: {self.horizon} is not a length of at least a microsecond in days or hours")
        return self


class AccuracyTicket(Command, AccuracyCommand):
    """``do_get`` ticket and ``get_flight_info`` command of accuracy figures; as a ``ReadTicket``."""

    op: Literal["accuracy"] = "accuracy"
    bucket: str | None = None
    table_version: Annotated[int, Field(ge=0)] | None = None
