"""The lake: a folder of tenants, its format version and its fixed settings."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from storage.backup import back_up, restore
from storage.boundary import errors_are_ours
from storage.doctor import examine_lake
from storage.layout import MARKER, TENANTS, USERS_FOLDER, tenant_folder
from storage.nesting import refuse_nested
from storage.object_store import PROBE_FOLDER, ObjectStore, check_conditional_put
from storage.store import ASIDE_PREFIX, LocalStore, Store
from storage.tenant import Tenant
from storage.upgrade import STEPS, Step, lift, renew_tables
from storage.user_table import Users
from storage.users import NewUser
from timedb.errors import InvalidRequest, NotFound
from timedb.settings import ServerSettings, local_path
from timedb.times import format_time, now
from timedb.wire import shown

__all__ = ["FORMAT_VERSION", "Lake"]

FORMAT_VERSION = 1
_FOLDERS = (TENANTS, USERS_FOLDER)
_AUTHENTICATION = "authentication"  # in the marker
# What one look at the users table costs decides how often calls look: a file that is not there, or a round trip.
_LOOK_SECONDS = 1.0
_LOOKED_AT = 10_000  # files of a folder that may hold a lake further down


class Lake:
    """Everything below one address. One object a process is enough; it is thread-safe.

    Attributes:
        users: Who may do what; of use once calls need a key (:attr:`has_users`).
    """

    def __init__(self, store: Store, marker: dict[str, Any], settings: ServerSettings) -> None:
        self._store = store
        self._max_age = 0.0 if isinstance(store, LocalStore) else _LOOK_SECONDS
        self.users = Users(
            store.below(USERS_FOLDER), max_age_seconds=self._max_age, retention_hours=settings.retention_hours
        )
        # Once seen, never unseen: a users table that is lost or out of reach must not open the lake to everybody.
        self._has_users = bool(marker.get(_AUTHENTICATION))
        self._looked = -float("inf")
        self._settings = settings
        self._bucket_digits: int | None = None if marker["bucket_digits"] == "full" else int(marker["bucket_digits"])
        self._tenants: dict[str, Tenant] = {}
        self._lock = threading.Lock()

    @classmethod
    @errors_are_ours()
    def open(cls, uri: str, settings: ServerSettings, *, create: bool = True) -> Lake:
        """Open a lake, or make it.

        Args:
            uri: A folder.
            settings: Limits of its tenants.
            create: Make the lake where there is none.

        Raises:
            NotFound: there is none, and ``create`` is False.
            InvalidRequest: what is there is no lake of ours, or one of another format; a new one would lie inside
                another, or around it.
        """
        store = _store(uri)
        try:
            if not store.exists(MARKER):
                if not create:
                    raise NotFound(f"lake: there is no lake at {shown(uri)}")
                _refuse_foreign(store, uri)
                refuse_nested(uri)
                _make(store, settings)
            marker = _read_marker(store, uri)
        except (NotADirectoryError, FileExistsError, PermissionError) as error:
            raise InvalidRequest(f"lake: {shown(uri)} cannot be opened: {error.strerror}") from error
        if marker["format_version"] != FORMAT_VERSION:
            advice = "; timedb upgrade lifts it" if marker["format_version"] < FORMAT_VERSION else ""
            raise InvalidRequest(
                f"lake: {shown(uri)} has format version {marker['format_version']}, "
                f"this service knows {FORMAT_VERSION}{advice}"
            )
        return cls(store, marker, settings)

    @staticmethod
    def delete(uri: str) -> bool:
        """Delete a lake and nothing beside it; False where there was none.

        Raises:
            InvalidRequest: the folder holds something else.
        """
        store = _store(uri)
        if not store.exists(MARKER):
            _refuse_foreign(store, uri)
            return False
        for folder in _FOLDERS:
            store.below(folder).delete_all()
        store.delete(MARKER)
        store.delete_folder()
        return True

    @staticmethod
    def doctor(uri: str, *, repair: bool = False, accept_loss: bool = False) -> list[dict[str, Any]]:
        """Examine the files of a lake: ``{table, fault, path, cure, repaired}`` of each fault; see ``storage.doctor``.

        Raises:
            NotFound: there is no lake.
        """
        store = _store(uri)
        if not store.exists(MARKER):
            raise NotFound(f"lake: there is no lake at {shown(uri)}")
        return [finding.to_dict() for finding in examine_lake(store, repair=repair, accept_loss=accept_loss)]

    @staticmethod
    @errors_are_ours()
    def upgrade(uri: str, *, newest: int = FORMAT_VERSION, steps: Mapping[int, Step] = STEPS) -> dict[str, int]:
        """Lift a lake that no server has open to the newest format; see ``storage.upgrade``.

        Returns:
            ``{from, to, tables}``: the format versions before and after, and how many tables got properties that
            newer releases give them.

        Raises:
            NotFound: there is no lake.
            InvalidRequest: it is newer, or there is no way to lift it.
            Internal, Unimplemented: a table is damaged, or was changed by another writer; the doctor says which.
        """
        store = _store(uri)
        if not store.exists(MARKER):
            raise NotFound(f"lake: there is no lake at {shown(uri)}")
        lifted = lift(
            store, _read_marker(store, uri), newest, steps, lambda marker: store.replace(MARKER, _marker_text(marker))
        )
        return {**lifted, "tables": renew_tables(store)}

    @staticmethod
    @errors_are_ours()
    def backup(uri: str, target: str, *, hard_links: bool = False) -> dict[str, Any]:
        """Copy a lake into an empty local folder while servers go on; see ``storage.backup.back_up``.

        Raises:
            NotFound: there is no lake.
            InvalidRequest, Busy, Internal: there is no backup, and the target is as before.
        """
        store = _store(uri)
        if not store.exists(MARKER):
            raise NotFound(f"lake: there is no lake at {shown(uri)}")
        refuse_nested(target, field="target")
        return back_up(store, MARKER, _folder(target, "target"), hard_links=hard_links)

    @staticmethod
    @errors_are_ours()
    def restore(source: str, target: str) -> dict[str, Any]:
        """Make a lake in an empty local folder from a backup; see ``storage.backup.restore``.

        Raises:
            InvalidRequest, Internal: there is no lake, and the target is as before.
        """
        refuse_nested(target, field="target")
        return restore(_folder(source, "source"), MARKER, _folder(target, "target"))

    @property
    @errors_are_ours()
    def has_users(self) -> bool:
        """Whether calls need a key."""
        if not self._has_users and time.monotonic() - self._looked >= self._max_age:
            looked = time.monotonic()
            self._has_users = self.users.table.exists()
            self._looked = looked
        return self._has_users

    @errors_are_ours()
    def enable_users(self) -> None:
        """Ask every call for a key, from now on and for good."""
        self.users.table.create()
        self._has_users = True
        marker = json.loads(self._store.read(MARKER))
        if not marker.get(_AUTHENTICATION):
            self._store.replace(MARKER, _marker_text({**marker, _AUTHENTICATION: True}))

    def create_user(self, new: NewUser) -> dict[str, Any]:
        """Make a user, which also asks every call for a key from now on.

        Returns:
            The user and the ``api_key``, which nobody can look up afterwards.

        Raises:
            Conflict: the tenant has a user of that e-mail.
        """
        self.enable_users()
        return self.users.create(new)

    @errors_are_ours()
    def has_tenant(self, tenant_id: str) -> bool:
        """Whether anything has been kept for a tenant (UUID text)."""
        return self._store.exists(f"{tenant_folder(tenant_id)}/values")

    @errors_are_ours()
    def tenant(self, tenant_id: str) -> Tenant:
        """A tenant of the lake.

        Raises:
            InvalidRequest: the id is no UUID.
        """
        try:
            name = str(UUID(tenant_id))
        except ValueError:
            raise InvalidRequest(f"tenant_id: {shown(tenant_id)} is not a UUID") from None
        with self._lock:
            if name not in self._tenants:
                folder = self._store.below(tenant_folder(name))
                self._tenants[name] = Tenant(folder, name, self._bucket_digits, self._settings)
            return self._tenants[name]

    def oldest_write_seconds(self) -> float:
        """For how long the write has waited for its commit that has waited longest; infinite where none is to come."""
        # Without the lock, which is held while a tenant is opened: this must answer whatever hangs.
        lanes = [tenant.lane for tenant in list(self._tenants.values())]
        return max((lane.oldest_seconds if lane.alive else float("inf") for lane in lanes), default=0.0)

    def close(self) -> None:
        """Finish what waits, take no more writes."""
        with self._lock:
            for tenant in self._tenants.values():
                tenant.close()


def _make(store: Store, settings: ServerSettings) -> None:
    made = {
        "format_version": FORMAT_VERSION,
        "bucket_digits": settings.bucket_digits,
        "created_time": format_time(now()),
    }
    store.put_if_absent(MARKER, _marker_text(made))


def _marker_text(marker: dict[str, Any]) -> bytes:
    return (json.dumps(marker, indent=1) + "\n").encode()


def _read_marker(store: Store, uri: str) -> dict[str, Any]:
    try:
        marker = json.loads(store.read(MARKER))
        return {**marker, "format_version": int(marker["format_version"]), "bucket_digits": marker["bucket_digits"]}
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest(f"lake: {shown(uri)} has a {MARKER} that is none of a lake") from None


def _refuse_foreign(store: Store, uri: str) -> None:
    """A folder with something else in it neither becomes a lake nor goes away as one."""
    # Another process may be making this lake, or have died doing so.
    passing = (ASIDE_PREFIX, PROBE_FOLDER)
    found = (file.path for file in store.list() if not file.path.startswith(passing))
    first = next(found, None)
    if first is None or store.exists(MARKER):
        return
    for path in (first, *islice(found, _LOOKED_AT)):
        if path.endswith(f"/{MARKER}"):
            inner = store.url(path.removesuffix(f"/{MARKER}"))
            raise InvalidRequest(
                f"lake: {shown(uri)} is no lake but holds the one at {inner!a}, and one lake does not hold "
                "another; use that one, or a folder beside it"
            )
    raise InvalidRequest(f"lake: {shown(uri)} holds something else and is no lake, so it is left alone")


def _folder(uri: str, field: str) -> Path:
    path = local_path(uri)
    if path is None:
        raise InvalidRequest(f"{field}: {shown(uri)} is no local folder")
    return path.absolute()


def _store(uri: str) -> Store:
    path = local_path(uri)
    if path is not None:
        return LocalStore(path)
    store = ObjectStore(uri)
    check_conditional_put(store)
    return store
