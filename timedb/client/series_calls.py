"""What the Python client can do with series: make them, find them, change what they say of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from timedb.client.arguments import plain
from timedb.client.selection import message_of
from timedb.contract.wire import (
    CreateManySeries,
    CreateSeries,
    ListSeries,
    SeriesLabels,
    UpdateSeries,
    WireModel,
    parse_object,
)

if TYPE_CHECKING:
    from typing import Unpack
    from uuid import UUID

    from timedb.client.selection import SeriesChanges

__all__ = ["SeriesCalls"]


class SeriesCalls(ABC):
    """The part of :class:`~timedb.client.Client` that is about series."""

    @abstractmethod
    def call(self, action: str, message: WireModel) -> dict[str, Any]:
        """Send an action; its answer."""

    def create_series(
        self,
        name: str,
        *,
        unit: str | None = None,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Create a series, or find it: (name, labels) is what it is.

        Args:
            name: Its name.
            unit: None: ``dimensionless``, or what it has already.
            description: For people.
            labels: Tell series of one name apart.

        Returns:
            The series_id.

        Raises:
            Conflict: it has another unit.

        Examples:
            >>> north = client.create_series("load", unit="MW", labels={"site": "north"})
            >>> client.create_series("load", labels={"site": "north"}) == north  # it is there already
            True
        """
        fields = {"name": name, "unit": unit, "description": description, "labels": labels and dict(labels)}
        return str(self.call("create_series", message_of(CreateSeries, fields))["series_id"])

    def create_many_series(self, series: Iterable[Mapping[str, Any]]) -> list[str]:
        """Create many series in one call, all of them or none, or find them.

        Args:
            series: The arguments of :meth:`create_series` each: ``{"name", "unit", "description", "labels"}``.

        Returns:
            The series_id of each, in order.

        Raises:
            Conflict: one has another unit.

        Examples:
            >>> loads = [{"name": "load", "labels": {"site": site}} for site in ("east", "west")]
            >>> len(client.create_many_series(loads))
            2
        """
        message = parse_object(CreateManySeries, {"series": [dict(one) for one in series]})
        return [str(one["series_id"]) for one in self.call("create_many_series", message)["series"]]

    def list_series(
        self,
        *,
        name: str | None = None,
        labels: Mapping[str, str | list[str] | None] | None = None,
        search: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The series of that name, with those labels, whose texts hold each word of ``search``.

        They come by name; under a search the best answers come first: that very name, names that begin so, names that
        hold the words, then series whose unit, description, id or labels do.

        Returns:
            ``{"series_id", "name", "labels", "unit", "description"}`` each.

        Examples:
            >>> [series["labels"] for series in client.list_series(name="load", labels={"site": ["east", "north"]})]
            [{'site': 'east'}, {'site': 'north'}]
            >>> client.list_series(search="north load")[0]["unit"]
            'MW'
        """
        asked = {"name": name, "labels": labels and dict(labels), "search": search, "limit": limit}
        found = self.call("list_series", message_of(ListSeries, asked))
        series: list[dict[str, Any]] = found["series"]
        return series

    def series_labels(self, name: str | None = None) -> dict[str, list[str]]:
        """Every label key with its values, of the series of that name, else of all.

        Examples:
            >>> client.series_labels("load")
            {'site': ['east', 'north', 'west']}
        """
        labels: dict[str, list[str]] = self.call("series_labels", message_of(SeriesLabels, {"name": name}))["labels"]
        return labels

    def update_series(self, series_id: str | UUID, **changes: Unpack[SeriesChanges]) -> dict[str, Any]:
        """Change what a series says of itself; what is left out stays, ``description=None`` clears it.

        Args:
            series_id: Which series.
            changes: ``name``: a rename keeps the id and the values, and leaves the old name to whoever takes it next.
                ``unit`` with ``unit_change="declare"``: the stored numbers stay, and have been of that unit all along;
                with ``unit_change="convert"``: all of them are converted to it, those of every run and ``as_of``.
                ``description``; ``retired``: whether the series takes no more values and is listed no more.

        Returns:
            The series as it is now.

        Raises:
            NotFound: there is none of that id.
            Conflict: another series has the name and the same labels.
            InvalidRequest: nobody knows the unit, nothing says what becomes of the values, or they do not convert.
            TooLarge: there is too much to be converted.

        Examples:
            >>> client.update_series(north, description="Feeder 7", unit="kW", unit_change="declare")["unit"]
            'kW'
            >>> client.update_series(north, unit="MW", unit_change="convert")["unit"]
            'MW'
        """
        return self.call("update_series", parse_object(UpdateSeries, plain("", {"series_id": series_id, **changes})))
