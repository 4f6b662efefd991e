"""``timedb update-series``: names, units and descriptions set right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from timedb.cli.options import AsJson, FlightUrl, Labels, client_of, selected_labels
from timedb.cli.output import show

if TYPE_CHECKING:
    from timedb.client import Client

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``timedb``."""
    app.command()(update_series)


def update_series(
    series: Annotated[str, typer.Argument(help="Which series: its name, or its id.")],
    labels: Labels = None,
    name: Annotated[str | None, typer.Option(help="What it is called from now on; its id and its values stay.")] = None,
    unit: Annotated[str | None, typer.Option(help="What its values are of; goes with --declare or --convert.")] = None,
    declare: Annotated[
        bool, typer.Option("--declare", help="The stored numbers stay, and have been of --unit all along.")
    ] = False,
    convert: Annotated[
        bool, typer.Option("--convert", help="All stored numbers are converted to --unit; a change of its own.")
    ] = False,
    description: Annotated[str | None, typer.Option(help="For people; '' takes it away.")] = None,
    retired: Annotated[
        bool | None, typer.Option("--retire/--restore", help="Take no more values and be listed no more, or again.")
    ] = None,
    flight_url: FlightUrl = None,
    json: AsJson = False,
) -> None:
    """Rename a series, set its unit or description right, or retire it. What is not said stays.

    Whoever uploads to a series that is converted has to say --unit, or to send numbers of the new one from then on.

    Example: timedb update-series wnid --name wind --unit MW --declare
    """
    if (declare, convert).count(True) != (unit is not None):
        raise _half_said(declare=declare, convert=convert)
    changes: dict[str, Any] = {"name": name, "unit": unit, "retired": retired}
    if unit is not None:
        changes["unit_change"] = "declare" if declare else "convert"
    if description is not None:
        changes["description"] = description or None
    given = {field: value for field, value in changes.items() if value is not None or field == "description"}
    with client_of(flight_url) as client:
        show(client.update_series(_id_of(client, series, selected_labels(labels)), **given), as_json=json)


def _half_said(*, declare: bool, convert: bool) -> Exception:
    from timedb.contract.errors import InvalidRequest

    if declare and convert:
        return InvalidRequest("--convert: the numbers stay under --declare; say one of them")
    if declare or convert:
        option = "--declare" if declare else "--convert"
        return InvalidRequest(f"{option}: says what the values have to do with a unit, and goes with --unit")
    return InvalidRequest(
        "--unit: --declare beside it says that the stored numbers have been of this unit all along, --convert converts "
        "them all. Or read with --unit to get them in another, and upload with --unit what is in another"
    )


def _id_of(client: Client, series: str, labels: dict[str, Any] | None) -> str:
    """The id of the one series that is meant.

    Raises:
        NotFound: there is none.
        InvalidRequest: there are several of that name.
    """
    from uuid import UUID

    from timedb.contract.errors import InvalidRequest, NotFound
    from timedb.contract.quantiles import PROBABILITY_COLUMNS

    found = client.list_series(name=series, labels=labels)
    bare = [each for each in found if not each["labels"]]
    # As in reads and uploads: a bare name is the unlabelled series, or the only one unless it is one of many by nature.
    meant = found if labels is not None or not bare else bare
    if len(meant) > 1 or (meant and labels is None and not meant[0]["labels"].keys().isdisjoint(PROBABILITY_COLUMNS)):
        listed = "; ".join(sorted(str(each["labels"]) for each in found)[:10])
        raise InvalidRequest(
            f"{series!a} is the name of series with labels; say which with --label KEY=VALUE: {listed}"
        )
    if meant:
        return str(meant[0]["series_id"])
    try:
        return str(UUID(series))
    except ValueError:
        raise NotFound(
            f"there is no series {series!a}; timedb series lists them, retired ones go by their id"
        ) from None
