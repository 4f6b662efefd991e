"""The lake: a folder of tenants, its format version and its fixed settings."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from timedb.contract.errors import Damaged, InvalidRequest, NotFound, TimeDBError
from timedb.contract.settings import ServerSettings, local_path
from timedb.contract.times import format_time, now
from timedb.contract.wire import quoted
from timedb.storage.admin.backup import back_up, restore
from timedb.storage.admin.doctor import Examination, Progress, examine_lake
from timedb.storage.admin.findings import NESTED, Finding
from timedb.storage.admin.nesting import nesting, refuse_nested
from timedb.storage.admin.upgrade import STEPS, Step, lift, renew_tables
from timedb.storage.boundary import translating_errors
from timedb.storage.delta.addresses import refuse_unreadable
from timedb.storage.delta.object_store import PROBE_FOLDER, ObjectStore, check_conditional_put
from timedb.storage.delta.privacy import close_folder
from timedb.storage.delta.standing import DELETED_TIME, LAKE_ID, Standing, identity_of
from timedb.storage.delta.store import ASIDE_PREFIX, LocalStore, Store, make_folder
from timedb.storage.maintain.rounds import Rounds
from timedb.storage.memory.server import MemoryOfServer
from timedb.storage.tables.clock import Clock
from timedb.storage.tables.layout import (
    FORMAT_VERSION,
    MARKER,
    SERVING,
    TENANTS,
    USERS_FOLDER,
    tenant_folder,
    tenant_ids,
)
from timedb.storage.tables.lease import Lease, is_served, refuse_served
from timedb.storage.tables.marker import (
    AUTHENTICATION,
    KNOWN,
    MARKER_COPY,
    is_known,
    make_marker,
    marker_of,
    note_tenant,
    write_marker,
)
from timedb.storage.tenant import Tenant
from timedb.storage.users.table import Users
from timedb.storage.users.users import NewUser
from timedb.storage.watch import Watch

__all__ = ["Lake"]

_FOLDERS = (TENANTS, USERS_FOLDER, KNOWN)
# What one look at the users table or the marker costs decides how often calls look: a system call, or a round trip.
_LOOK_SECONDS = 1.0
_LOOKED_AT = 10_000  # files of a folder that may hold a lake further down
_MODES = {"none": 0o700, "read": 0o750, "write": 0o770}
_log = logging.getLogger("timedb.storage")


class Lake:
    """Everything below one address. One object a process is enough; it is thread-safe.

    Attributes:
        users: Who may do what; of use once calls need a key (:attr:`has_users`).
        is_new: Whether it was made when it was opened.
        memory: What its tenants share of the server's memory.
    """

    def __init__(
        self, store: Store, uri: str, marker: dict[str, Any], settings: ServerSettings, *, is_new: bool
    ) -> None:
        self._store = store
        self._uri = uri
        self._max_age = 0.0 if isinstance(store, LocalStore) else _LOOK_SECONDS
        self._standing = Standing(store, MARKER, identity_of(marker), max_age_seconds=_LOOK_SECONDS)
        self._clock = Clock(settings.max_clock_skew_seconds)
        self._watch = Watch(store, self._standing, self._clock)
        self.is_new = is_new
        self.users = Users(
            store.below(USERS_FOLDER),
            max_age_seconds=self._max_age,
            retention_hours=settings.retention_hours,
            standing=self._standing,
            made=bool(marker.get(AUTHENTICATION)),
        )
        # Once seen, never unseen: a users table that is lost or out of reach must not open the lake to everybody.
        self._has_users = bool(marker.get(AUTHENTICATION))
        self._looked = -float("inf")
        self._settings = settings
        self._bucket_digits: int | None = None if marker["bucket_digits"] == "full" else int(marker["bucket_digits"])
        self._tenants: dict[str, Tenant] = {}
        self.memory = MemoryOfServer(settings)
        self._rounds = Rounds()
        self._lease: Lease | None = None
        self._lock = threading.Lock()

    @classmethod
    @translating_errors()
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
        is_new = False
        try:
            if not store.exists(MARKER):
                if not create:
                    raise NotFound(f"lake: there is no lake at {quoted(uri)}")
                refuse_unreadable(uri, field="lake")
                _refuse_foreign(store, uri)
                refuse_nested(uri)
                is_new = _make(store, settings)
            marker = _read_marker(store, uri)
            _keep_copy(store)
        except OSError as error:
            if not isinstance(store, LocalStore):
                raise
            raise InvalidRequest(f"lake: {quoted(uri)} cannot be opened: {error.strerror}") from error
        if marker["format_version"] != FORMAT_VERSION:
            advice = "; timedb upgrade lifts it" if marker["format_version"] < FORMAT_VERSION else ""
            raise InvalidRequest(
                f"lake: {quoted(uri)} has format version {marker['format_version']}, "
                f"this service knows {FORMAT_VERSION}{advice}"
            )
        if marker.get(DELETED_TIME):
            raise InvalidRequest(f"lake: {quoted(uri)} has been deleted in part; timedb delete removes the rest")
        return cls(store, uri, marker, settings, is_new=is_new)

    @staticmethod
    @translating_errors()
    def delete(uri: str, *, force: bool = False) -> bool:
        """Delete a lake and nothing beside it; False where there was none.

        Args:
            uri: A folder or object store address.
            force: Also while servers run on it; they then answer every call with an error.

        Raises:
            InvalidRequest: the folder holds something else.
            Conflict: a server is running on the lake.
            Internal: a file could not be deleted; call it again.
        """
        store = _store(uri)
        if not store.exists(MARKER):
            _refuse_file(uri, "lake")
            _refuse_foreign(store, uri)
            return False
        if not force:
            refuse_served(store, uri, ", or delete the lake under it by force: --force, force=True")
        _mark_deleted(store)
        if force and not isinstance(store, LocalStore) and is_served(store):
            time.sleep(2 * _LOOK_SECONDS)  # until its servers have looked, or they would write what nobody removes
        for folder in (*_FOLDERS, SERVING):
            store.below(folder).delete_all()
        store.delete(MARKER)
        store.delete_folder()
        return True

    @staticmethod
    @translating_errors()
    def doctor(
        uri: str,
        *,
        repair: bool = False,
        accept_loss: bool = False,
        verify: bool = False,
        progress: Progress = lambda table, size: None,
        accept_foreign: bool = False,
    ) -> list[dict[str, Any]]:
        """Examine the files of a lake: ``{table, fault, path, cure, repaired, loss, notice}`` of each fault.

        See ``storage/admin/doctor.py``; ``progress`` is called with a table and the bytes of each file of it that has
        been looked at; ``accept_foreign`` takes what other writers have done so far for meant.

        Raises:
            NotFound: there is no lake.
            Internal: a file could not be read or written.
        """
        store = _store(uri)
        if not store.exists(MARKER) and not store.exists(MARKER_COPY):
            raise NotFound(f"lake: there is no lake at {quoted(uri)}")
        nested = nesting(uri)
        found = [] if nested is None else [Finding("", NESTED, uri, f"none: {nested}")]
        found += examine_lake(store, Examination(repair, accept_loss, verify, progress, accept_foreign))
        return [finding.to_dict() for finding in found]

    @staticmethod
    @translating_errors()
    def upgrade(uri: str, *, newest: int = FORMAT_VERSION, steps: Mapping[int, Step] = STEPS) -> dict[str, int]:
        """Lift a lake that no server has open to the newest format; see ``timedb.storage.admin.upgrade``.

        Returns:
            ``{from, to, tables}``: the format versions before and after, and how many tables got properties that
            newer releases give them.

        Raises:
            NotFound: there is no lake.
            InvalidRequest: it is newer, or there is no way to lift it.
            Internal, Unimplemented: a table is damaged, or was changed by another writer; the doctor says which.
            Conflict: a server is running on it, and there is something to lift.
        """
        store = _store(uri)
        if not store.exists(MARKER):
            raise NotFound(f"lake: there is no lake at {quoted(uri)}")
        marker = _read_marker(store, uri)
        if marker["format_version"] < newest:
            refuse_served(store, uri, "")
        lifted = lift(store, marker, newest, steps, lambda marker: write_marker(store, marker))
        return {**lifted, "tables": renew_tables(store)}

    @staticmethod
    @translating_errors()
    def backup(uri: str, target: str, *, hard_links: bool = False) -> dict[str, Any]:
        """Copy a lake into an empty local folder while servers go on; see ``timedb.storage.admin.backup.back_up``.

        Raises:
            NotFound: there is no lake.
            InvalidRequest, Busy, Internal: there is no backup, and the target is as before.
        """
        store = _store(uri)
        if not store.exists(MARKER):
            raise NotFound(f"lake: there is no lake at {quoted(uri)}")
        refuse_unreadable(target, field="target")
        refuse_nested(target, field="target")
        return back_up(store, MARKER, _folder(target, "target"), hard_links=hard_links)

    @staticmethod
    @translating_errors()
    def restore(source: str, target: str) -> dict[str, Any]:
        """Make a lake in an empty local folder from a backup; see ``timedb.storage.admin.backup.restore``.

        Raises:
            InvalidRequest, Internal: there is no lake, and the target is as before.
            Conflict: a server is running on the target.
        """
        refuse_unreadable(target, field="target")
        refuse_nested(target, field="target")
        folder = _folder(target, "target")
        _refuse_file(target, "target")
        store = LocalStore(folder)
        refuse_served(store, target, "")
        if all(file.path.startswith((f"{SERVING}/", f"{KNOWN}/")) for file in store.list()):
            for left in (SERVING, KNOWN):  # by a server that was killed, and of a lake that was moved away
                store.below(left).delete_all()
        return restore(_folder(source, "source"), MARKER, folder)

    @property
    @translating_errors()
    def has_users(self) -> bool:
        """Whether calls need a key.

        Raises:
            Busy: another lake is in the place of this one, and it has users.
        """
        if not self._has_users and time.monotonic() - self._looked >= self._max_age:
            looked = time.monotonic()
            if self.users.table.exists():
                self._standing.check()
                self._has_users = True
            self._looked = looked
        return self._has_users

    @translating_errors()
    def enable_users(self) -> None:
        """Ask every call for a key, from now on and for good."""
        self.users.make()
        self._has_users = True
        marker = json.loads(self._store.read(MARKER))
        if not marker.get(AUTHENTICATION):
            write_marker(self._store, {**marker, AUTHENTICATION: True})

    def create_user(self, new: NewUser) -> dict[str, Any]:
        """Make a user, which also asks every call for a key from now on.

        Returns:
            The user and the ``api_key``, which nobody can look up afterwards.

        Raises:
            Conflict: the tenant has a user of that e-mail.
            InvalidRequest: nothing says which tenant, and there are several.
        """
        with_data = self.tenants_with_data() if new.tenant_id is None else []
        self.users.tenant_for(new, with_data)  # where that is refused, the lake stays as open as it was
        self.enable_users()
        return self.users.create(new, with_data)

    @translating_errors()
    def tenants_with_data(self) -> list[str]:
        """The tenants (UUID text) for which anything is kept."""
        return tenant_ids(self._store)

    @translating_errors()
    def tenant(self, tenant_id: str) -> Tenant:
        """A tenant of the lake.

        Raises:
            InvalidRequest: the id is no UUID.
        """
        try:
            name = str(UUID(tenant_id))
        except ValueError:
            raise InvalidRequest(f"tenant_id: {quoted(tenant_id)} is not a UUID") from None
        with self._lock:
            if name not in self._tenants:
                folder = self._folder_of(name)
                self._tenants[name] = Tenant(
                    folder,
                    name,
                    self._bucket_digits,
                    self._settings,
                    self._standing,
                    self.memory,
                    self._clock,
                    self._rounds,
                )
                try:
                    note_tenant(self._store, name)  # once there is something, for who finds nothing then calls it lost
                except OSError as error:
                    _log.warning("the tenant %s could not be written down: %s", name, error)
            return self._tenants[name]

    def _folder_of(self, tenant_id: str) -> Store:
        """The folder of a tenant.

        Raises:
            Damaged: the lake has had that tenant, and the folder is gone.
        """
        self._standing.check()
        path = tenant_folder(tenant_id)
        if is_known(self._store, tenant_id) and not self._store.exists(path):  # in this order: others may make it now
            fault = f"the folder {path} is gone, with all that the tenant had; restore a backup"
            self._standing.note_damage(path, fault)
            raise Damaged(fault)
        self._standing.note_damage(path, None)
        return self._store.below(path)

    def look(self) -> None:
        """Find out whether the clock may be trusted, before the first call is served."""
        try:
            self._watch.begin()
        except (OSError, TimeDBError) as error:
            _log.warning("whether the clock is right could not be found out: %s", error)

    @translating_errors()
    def announce(self, address: str) -> None:
        """Leave a sign in the lake that this process serves it, until :meth:`close`; a second time does nothing.

        Args:
            address: Where, for whoever finds the sign.
        """
        with self._lock:
            if self._lease is None:
                self._lease = Lease(self._store, self._standing, address, self._watch.look)
                if (nested := nesting(self._uri)) is not None:
                    _log.warning(nested)

    def fault(self, stuck_seconds: float) -> str | None:
        """Why the lake does not work, as far as is known without a look at it; None: it does.

        Args:
            stuck_seconds: For how long a write may wait for its commit.
        """
        if self._standing.fault is not None:
            return self._standing.fault
        faults = (self._standing.storage_fault, *list(self._standing.damage.values()), self._clock.fault)
        for fault in faults:
            if fault is not None:
                return fault
        if self.oldest_write_seconds() < stuck_seconds:
            return None
        return "writes are stuck: one has waited too long for its commit"

    @property
    def warning(self) -> str | None:
        """What may be wrong with it although it works; None: nothing that is known."""
        return self._clock.warning

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
            self._rounds.close()
            if self._lease is not None:
                self._lease.close()


def _make(store: Store, settings: ServerSettings) -> bool:
    """Make a lake; False where somebody else has just done so."""
    if isinstance(store, LocalStore):
        new = not store.root.exists()
        make_folder(store.root)
        close_folder(store.root, _MODES[settings.group_access], new=new)
    made = {
        "format_version": FORMAT_VERSION,
        LAKE_ID: str(uuid4()),
        "bucket_digits": settings.bucket_digits,
        "created_time": format_time(now()),
    }
    return make_marker(store, made)


def _keep_copy(store: Store) -> None:
    """Have a copy of the marker, which lakes of old releases lack."""
    if store.exists(MARKER_COPY):
        return
    try:
        store.replace(MARKER_COPY, store.read(MARKER))
    except OSError as error:
        _log.info("the lake's marker has no copy, as none can be written: %s", error.strerror or error)


def _mark_deleted(store: Store) -> None:
    """From here on no server takes the folder for a lake, while what is left of it can still be deleted."""
    try:
        marker = json.loads(store.read(MARKER))
    except ValueError:
        marker = None
    if isinstance(marker, dict):
        write_marker(store, {**marker, DELETED_TIME: format_time(now())})


def _read_marker(store: Store, uri: str) -> dict[str, Any]:
    try:
        return marker_of(store.read(MARKER))
    except ValueError:
        raise InvalidRequest(
            f"lake: {quoted(uri)} has a {MARKER} that is none of a lake; timedb doctor --repair writes that of a lake "
            "anew"
        ) from None


def _refuse_foreign(store: Store, uri: str) -> None:
    """A folder with something else in it neither becomes a lake nor goes away as one."""
    # Another process may be making this lake, or have died doing so.
    passing = (ASIDE_PREFIX, PROBE_FOLDER, f"{SERVING}/")
    found = (file.path for file in store.list() if not file.path.startswith(passing))
    first = next(found, None)
    if first is None or store.exists(MARKER):
        return
    for path in (first, *islice(found, _LOOKED_AT)):
        if path.endswith(f"/{MARKER}"):
            inner = store.url(path.removesuffix(f"/{MARKER}"))
            raise InvalidRequest(
                f"lake: {quoted(uri)} is no lake but holds the one at {inner!a}, and one lake does not hold "
                "another; use that one, or a folder beside it"
            )
    raise InvalidRequest(f"lake: {quoted(uri)} holds something else and is no lake, so it is left alone")


def _refuse_file(uri: str, field: str) -> None:
    path = local_path(uri)
    there = None if path is None else next(each for each in (path, *path.absolute().parents) if each.exists())
    if there is not None and not there.is_dir():
        raise InvalidRequest(f"{field}: {quoted(str(there))} is a file and no folder")


def _folder(uri: str, field: str) -> Path:
    path = local_path(uri)
    if path is None:
        raise InvalidRequest(f"{field}: {quoted(uri)} is no local folder")
    return path.absolute()


def _store(uri: str) -> Store:
    path = local_path(uri)
    if path is not None:
        return LocalStore(path)
    store = ObjectStore(uri)
    check_conditional_put(store)
    return store
