"""The ``users`` table of a lake: looked at by every call while the lake asks for keys, changed by compare-and-set."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa

from timedb.contract.errors import Conflict, InvalidRequest, NotFound, TimeDBError
from timedb.contract.times import now
from timedb.contract.wire import quoted
from timedb.storage.boundary import translating_errors
from timedb.storage.delta.damage import check_files
from timedb.storage.delta.log import Snapshot
from timedb.storage.delta.parquet import write_file
from timedb.storage.delta.standing import Standing
from timedb.storage.delta.store import Store
from timedb.storage.delta.vacuum import vacuum
from timedb.storage.tables.inventory import Inventory
from timedb.storage.tables.layout import USERS_FOLDER, users_table
from timedb.storage.tables.schemas import USERS
from timedb.storage.users.users import (
    NewUser,
    User,
    UserAddress,
    UserChange,
    choose_tenant,
    key_digest,
    labels_text,
    new_key,
    scopes_text,
    tenants_to_choose,
)

__all__ = ["Users"]

_INDEX_BYTES = 8
_NOBODY = bytes(hashlib.sha256().digest_size)
_CHECKPOINT_COMMITS = 32
_log = logging.getLogger("timedb.storage")


class _Known:
    """The users at one version of their table."""

    def __init__(self, snapshot: Snapshot, users: Iterable[User]) -> None:
        self.snapshot = snapshot
        self.by_id = {user.user_id: user for user in users}
        self._by_digest: dict[bytes, list[tuple[bytes, User | None]]] = {}
        for user in self.by_id.values():
            digest = bytes.fromhex(user.key_hash)
            self._by_digest.setdefault(digest[:_INDEX_BYTES], []).append((digest, user))

    def holder(self, digest: bytes) -> User | None:
        """The active user whose key has this digest. A key that nobody has costs the same comparison."""
        holder: User | None = None
        for known, user in self._by_digest.get(digest[:_INDEX_BYTES], [(_NOBODY, None)]):
            if hmac.compare_digest(known, digest):
                holder = user
        return holder if holder is not None and holder.active else None


class Users:
    """The users of a lake. Thread-safe.

    Args:
        store: The folder of the table.
        max_age_seconds: How old a look at the table may be that a call relies on: for so long a revoked key may still
            open the lake.
        retention_hours: Hours that replaced files stay for readers that may use them.
        standing: Watches the lake; None: nobody does.
        made: Whether the lake says that the table has been made.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_age_seconds: float,
        retention_hours: float,
        standing: Standing | None = None,
        made: bool = False,
    ) -> None:
        self._inventory = Inventory(store)
        self.table = users_table(store, standing, made=made)
        self._max_age = max_age_seconds
        self._retention_seconds = retention_hours * 3600.0
        self._known = _Known(Snapshot(-1, {}, {}), ())
        self._looked = -float("inf")
        self._looking = threading.Lock()
        self._writing = threading.Lock()

    @translating_errors()
    def make(self) -> None:
        """Make the table where there is none.

        Raises:
            Damaged: there was one.
        """
        self.table.create()
        self.table.snapshot()
        self._note()

    def _note(self) -> None:
        try:
            self._inventory.note({USERS_FOLDER: self.table})
        except OSError as error:
            _log.warning("what is known of the users table could not be written down: %s", error)

    @translating_errors()
    def find(self, key: str) -> User | None:
        """The active user whose key this is."""
        digest, asked = key_digest(key), time.monotonic()
        holder = self._at(asked - self._max_age).holder(digest)
        if holder is None and self._max_age:
            holder = self._at(asked).holder(digest)  # the key may be new
        return holder

    @translating_errors()
    def list_users(self, tenant_id: str | None = None, *, include_inactive: bool = False) -> list[dict[str, Any]]:
        """The users as people see them, oldest first.

        Args:
            tenant_id: Only those of this tenant.
            include_inactive: Also those whose key opens nothing.
        """
        found = [
            user
            for user in self._at(time.monotonic()).by_id.values()
            if tenant_id in (None, user.tenant_id) and (include_inactive or user.active)
        ]
        return [user.to_dict() for user in sorted(found, key=lambda user: (user.created_time, user.user_id))]

    @translating_errors()
    def tenant_for(self, new: NewUser, with_data: Collection[str]) -> str:
        """The tenant that a new user would get as things stand; see :func:`timedb.storage.users.users.choose_tenant`.

        Raises:
            InvalidRequest: there are several.
        """
        return choose_tenant(new, self._at(time.monotonic()).by_id.values(), with_data)

    @translating_errors()
    def tenants_to_choose(self, with_data: Collection[str]) -> dict[str, list[str]]:
        """Those of which a new user has to be given one; see :func:`timedb.storage.users.users.tenants_to_choose`."""
        return tenants_to_choose(self._at(time.monotonic()).by_id.values(), with_data)

    @translating_errors()
    def create(self, new: NewUser, with_data: Collection[str] = ()) -> dict[str, Any]:
        """Make a user.

        Args:
            new: The user.
            with_data: The tenants for which the lake keeps anything.

        Returns:
            The user and the ``api_key``, which nobody can look up afterwards.

        Raises:
            Conflict: the tenant has a user of that e-mail.
            InvalidRequest: nothing says which tenant, and there are several.
        """
        key, moment = new_key(), now()

        def add(known: _Known) -> User:
            user = User(
                user_id=str(uuid4()),
                tenant_id=choose_tenant(new, known.by_id.values(), with_data),
                email=new.email,
                scopes=scopes_text(new.scopes),
                labels=labels_text(new.labels),
                key_hash=key_digest(key).hex(),
                active=True,
                created_time=moment,
                changed_time=moment,
            )
            _refuse_namesake(known, user)
            return user

        return {**self._write("CREATE USER", add).to_dict(), "api_key": key}

    @translating_errors()
    def update(self, which: UserAddress, change: UserChange) -> dict[str, Any]:
        """Change a user's tenant, scopes or labels; the key stays, and what was written with it stays where it is.

        Returns:
            The user.

        Raises:
            NotFound: there is no such user.
            Conflict: the tenant has a user of that e-mail.
            InvalidRequest: several tenants have one of that e-mail; scopes and labels do not go together.
        """

        def changed(known: _Known) -> User:
            user = change.of(_pick(known, which))
            _refuse_namesake(known, user)
            return user

        return self._write("UPDATE USER", changed).to_dict()

    @translating_errors()
    def regenerate_key(self, which: UserAddress) -> dict[str, Any]:
        """Give a user a new key; the old one opens nothing any more.

        Returns:
            As :meth:`create`.

        Raises:
            NotFound: there is no such user.
            InvalidRequest: several tenants have one of that e-mail.
        """
        key = new_key()
        digest = key_digest(key).hex()
        user = self._write("REGENERATE KEY", lambda known: replace(_pick(known, which), key_hash=digest))
        return {**user.to_dict(), "api_key": key}

    @translating_errors()
    def set_active(self, which: UserAddress, active: bool) -> dict[str, Any]:
        """Let a user's key open the lake, or no longer.

        Returns:
            The user.

        Raises:
            NotFound, InvalidRequest: as :meth:`regenerate_key`.
        """
        operation = "ACTIVATE USER" if active else "DEACTIVATE USER"
        return self._write(operation, lambda known: replace(_pick(known, which), active=active)).to_dict()

    def _at(self, moment: float) -> _Known:
        """The users as a look at the table tells that began at that moment or later."""
        if self._looked >= moment:
            return self._known
        with self._looking:
            if self._looked < moment:
                began = time.monotonic()
                snapshot = self.table.snapshot()
                if snapshot.version != self._known.snapshot.version:
                    self._known = _Known(snapshot, self._read(snapshot))
                self._looked = began
            return self._known

    def _read(self, snapshot: Snapshot) -> list[User]:
        if not snapshot.files:
            return []
        check_files(self.table.store, snapshot.files)
        urls = [self.table.store.url(path) for path in sorted(snapshot.files)]
        rows = pl.read_parquet(urls, glob=False, hive_partitioning=False)
        return [User(**row) for row in rows.iter_rows(named=True)]

    def _write(self, operation: str, change: Callable[[_Known], User]) -> User:
        """Compare-and-set: the user that ``change`` makes of the newest table is written on top of it."""
        with self._writing:
            while True:
                known = self._at(time.monotonic())
                user = change(known)
                before = known.by_id.get(user.user_id)
                if user == before:
                    return user
                if before is not None:
                    user = replace(user, changed_time=now())
                if known.snapshot.version < 0:
                    self.table.create()  # before it has files, from which a table is known that has lost its log
                rows = [asdict(each) for each in {**known.by_id, user.user_id: user}.values()]
                file = write_file(self.table.store, pa.Table.from_pylist(rows, schema=USERS), {})
                removes = list(known.snapshot.files.values())
                info = {"user_id": user.user_id}
                if self.table.commit_or_delete(
                    known.snapshot, adds=[file], removes=removes, operation=operation, info=info
                ):
                    self._tidy()
                    self._note()
                    return user

    def _tidy(self) -> None:
        # The log itself stays whole: it is the record of who was given or denied access, and when.
        try:
            snapshot = self.table.snapshot()
            if snapshot.version - max(snapshot.checkpoint, 0) >= _CHECKPOINT_COMMITS:
                self.table.checkpoint()
                vacuum(self.table, time.time() - self._retention_seconds)
        except (TimeDBError, OSError) as error:
            _log.warning("the users table was not tidied: %s", error)


def _refuse_namesake(known: _Known, user: User) -> None:
    same = UserAddress(email=user.email, tenant_id=user.tenant_id)
    if any(same.fits(other) and other.user_id != user.user_id for other in known.by_id.values()):
        raise Conflict(
            f"email: tenant {user.tenant_id} has a user {quoted(user.email)} already; "
            "timedb users regenerate-key gives it a new key"
        )


def _pick(known: _Known, which: UserAddress) -> User:
    found = [user for user in known.by_id.values() if which.fits(user)]
    if not found:
        field, value = ("email", which.email) if which.user_id is None else ("user_id", which.user_id)
        raise NotFound(f"{field}: there is no user {quoted(value)}; timedb users list --include-inactive shows all")
    if len(found) > 1:
        tenants = ", ".join(sorted(user.tenant_id for user in found)[:10])
        raise InvalidRequest(
            f"email: {quoted(which.email)} is a user of several tenants; add a tenant_id (--tenant): {tenants}"
        )
    return found[0]
