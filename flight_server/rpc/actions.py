"""The actions: name, body, what is done, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timedb.contract.errors import Unimplemented
from timedb.contract.wire import (
    ApplyRetention,
    CreateManySeries,
    CreateSeries,
    GetRun,
    ListRuns,
    ListSeries,
    Nothing,
    RestoreRun,
    SeriesLabels,
    UpdateSeries,
    UpdateValues,
    WireModel,
    WithdrawRun,
    quoted,
)
from timedb.flight_server.call.authentication import Access

if TYPE_CHECKING:
    from timedb.storage import Tenant

__all__ = ["ACTIONS", "HEALTH", "Action", "find_action"]

HEALTH = "health"

READ = Access("read", limited=True)
READ_ALL = Access("read")
WRITE = Access("write", limited=True)
ADMIN = Access("admin")

Run = Callable[["Tenant", Any, "str | None"], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    Attributes:
        name: As clients call it.
        body: The message that it takes.
        access: What a key needs for it; None: no key may call it.
        description: What ``list_actions`` says of it.
        run: Takes the tenant, the message and the caller's e-mail (None while the lake is open); gives the result.
            None: the server itself has the answer.
    """

    name: str
    body: type[WireModel]
    access: Access | None
    description: str
    run: Run | None


_TABLE = (
    Action(
        "create_series",
        CreateSeries,
        WRITE,
        "{name, unit?, description?, labels?} -> {series_id, created}",
        lambda tenant, message, who: tenant.create_series(message, created_by=who),
    ),
    Action(
        "create_many_series",
        CreateManySeries,
        WRITE,
        "{series: [{name, unit?, description?, labels?}]} -> {series: [{series_id, created}]}",
        lambda tenant, message, who: tenant.create_many_series(message, created_by=who),
    ),
    Action(
        "update_series",
        UpdateSeries,
        WRITE,
        "{series_id, name?, unit? with unit_change, description?, retired?}"
        " -> {series_id, name, labels, unit, description, retired}",
        lambda tenant, message, caller: tenant.update_series(message, changed_by=caller),
    ),
    Action(
        "list_series",
        ListSeries,
        READ,
        "{name?, labels?, series_ids?, search?, limit?, after?} -> "
        "{series: [{series_id, name, labels, unit, description}], cursor?}",
        lambda tenant, message, _: tenant.page_of_series(message),
    ),
    Action(
        "series_labels",
        SeriesLabels,
        READ,
        "{name?} -> {labels: {key: [value]}}",
        lambda tenant, message, _: {"labels": tenant.series_labels(message)},
    ),
    Action(
        "update_values",
        UpdateValues,
        WRITE,
        "{updates: [{series_id, valid_time, ... | value_id, value?, annotation?, tags?, retracted?}], update_id?}"
        " -> {updated: [...], skipped_no_ops: [...]}",
        lambda tenant, message, who: tenant.update_values(message, changed_by=who),
    ),
    Action("get_run", GetRun, READ, "{run_id} -> the run", lambda tenant, message, _: tenant.get_run(message)),
    Action(
        "list_runs",
        ListRuns,
        READ,
        "{workflow_id?, start?, end?, limit?} -> {runs: [...]}",
        lambda tenant, message, _: {"runs": tenant.list_runs(message)},
    ),
    Action(
        "withdraw_run",
        WithdrawRun,
        WRITE,
        "{run_id, reason?, series_ids?} -> {withdrawn}",
        lambda tenant, message, who: tenant.withdraw_run(message, changed_by=who),
    ),
    Action(
        "restore_run",
        RestoreRun,
        WRITE,
        "{run_id, reason?, series_ids?} -> {restored, left_retracted}",
        lambda tenant, message, who: tenant.restore_run(message, changed_by=who),
    ),
    Action("compact", Nothing, ADMIN, "{} -> what was done", lambda tenant, _, __: tenant.compact()),
    Action("maintain", Nothing, ADMIN, "{} -> what was done", lambda tenant, _, __: tenant.maintain()),
    Action(
        "apply_retention",
        ApplyRetention,
        ADMIN,
        "{rules: [{name?, labels?, drop_after_days | thin_after_days | collapse_repeats_after_days, "
        "keep_last?, keep_known_at?}], dry_run} -> what went, by rule and series",
        lambda tenant, message, _: tenant.apply_retention(message.rules, dry_run=message.dry_run),
    ),
    Action("status", Nothing, READ_ALL, "{} -> figures", lambda tenant, _, __: tenant.status()),
    Action("metrics", Nothing, READ_ALL, "{} -> {text}: figures for Prometheus", None),
)

ACTIONS: dict[str, Action] = {action.name: action for action in _TABLE}
"""Every action but ``health``, which alone needs no tenant."""


def find_action(name: str) -> Action:
    """The action of that name.

    Raises:
        Unimplemented: there is none.
    """
    action = ACTIONS.get(name)
    if action is None:
        raise Unimplemented(f"action: there is no {quoted(name)}; there are {', '.join([*ACTIONS, HEALTH])}")
    return action
