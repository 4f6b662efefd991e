"""The users table: keys and their hashes, compare-and-set, what a lake with users never does again."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.storage.lakes import open_tenant, some_rows, tiny_settings, upload
from timedb.contract.errors import Conflict, Damaged, InvalidRequest, NotFound
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.wire import parse_object
from timedb.storage import Lake
from timedb.storage.users.table import Users
from timedb.storage.users.users import NewUser, User, UserAddress, UserChange, key_digest

TENANT = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"


@pytest.fixture
def new_lake(lake_dir: Path) -> Iterator[Callable[[], Lake]]:
    """Opens the test's lake as one more process would."""
    opened: list[Lake] = []

    def open_lake() -> Lake:
        opened.append(Lake.open(str(lake_dir), tiny_settings()))
        return opened[-1]

    yield open_lake
    for lake in opened:
        lake.close()


def ann(**fields: object) -> NewUser:
    return parse_object(NewUser, {"email": "ann@example.com", "tenant_id": TENANT, **fields})


def test_a_key_is_shown_once_and_only_its_hash_is_kept(new_lake: Callable[[], Lake], lake_dir: Path) -> None:
    lake = new_lake()
    made = lake.create_user(ann())
    key = made.pop("api_key")
    assert len(base64.urlsafe_b64decode(key.removeprefix("tdb_") + "=")) == 32
    (row,) = pl.read_delta(str(lake_dir / "users")).rows(named=True)
    assert row["key_hash"] == key_digest(key).hex()
    assert (row["tenant_id"], row["email"], row["scopes"], row["active"]) == (TENANT, made["email"], "read write", True)
    assert lake.users.list_users() == [made]
    assert "key" not in made
    assert not [path for path in lake_dir.rglob("*") if path.is_file() and key[4:].encode() in path.read_bytes()]
    found = lake.users.find(key)
    assert found is not None
    assert found.key_hash not in repr(found)


def test_every_process_sees_at_once_what_another_one_changes(new_lake: Callable[[], Lake]) -> None:
    one, other = new_lake(), new_lake()
    assert not other.has_users
    first = one.create_user(ann())["api_key"]
    assert other.has_users
    assert is_ann(other.users.find(first))
    second = other.users.regenerate_key(UserAddress(email="ann@example.com"))["api_key"]
    assert one.users.find(first) is None
    assert is_ann(one.users.find(second))
    one.users.set_active(UserAddress(email=" Ann@Example.com"), False)
    assert other.users.find(second) is None
    assert other.users.list_users() == []
    (shown,) = other.users.list_users(include_inactive=True)
    assert shown["is_active"] is False
    assert shown["changed_time"] > shown["created_time"]
    other.users.set_active(UserAddress(user_id=shown["user_id"]), True)
    assert is_ann(one.users.find(second))


def is_ann(user: User | None) -> bool:
    return user is not None and (user.email, user.tenant_id) == ("ann@example.com", TENANT)


def test_a_look_that_may_be_old_still_finds_new_keys_and_forgets_revoked_ones(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    lake.enable_users()
    patient = Users(lake.users.table.store, max_age_seconds=3600, retention_hours=1)
    key = lake.create_user(ann())["api_key"]
    assert is_ann(patient.find(key))
    lake.users.set_active(UserAddress(email="ann@example.com"), False)
    assert is_ann(patient.find(key)), "within its age the look before counts"
    assert patient.find("tdb_nobody's") is None
    assert patient.find(key) is None, "a key that nobody has made it look again"


@pytest.mark.parametrize("key", ["", "tdb_", "ä", "\udce4", "x" * 10_000, "0" * 64])
def test_no_other_text_is_a_key(new_lake: Callable[[], Lake], key: str) -> None:
    lake = new_lake()
    hashed = key_digest(lake.create_user(ann())["api_key"]).hex()
    assert lake.users.find(key) is None
    assert lake.users.find(hashed) is None


def test_many_processes_make_users_at_once_and_none_is_lost(new_lake: Callable[[], Lake]) -> None:
    lakes = [new_lake() for _ in range(4)]
    keys: list[str] = []

    def make(number: int) -> None:
        names = [NewUser(email=f"{number}-{each}@example.com") for each in range(6)]
        keys.extend([lakes[number].create_user(new)["api_key"] for new in names])

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = new_lake()
    found = {user.email for key in keys if (user := last.users.find(key)) is not None}
    assert found == {f"{number}-{each}@example.com" for number in range(4) for each in range(6)}
    assert len({user["tenant_id"] for user in last.users.list_users()}) == 1, "the first one's, which is the only one"


def test_an_e_mail_is_one_user_of_a_tenant_for_good(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    lake.create_user(ann())
    lake.users.set_active(UserAddress(email="ann@example.com"), False)
    with pytest.raises(Conflict, match=r"'ANN@example\.com' already"):
        lake.create_user(ann(email="ANN@example.com"))
    lake.create_user(ann(tenant_id=OTHER))
    with pytest.raises(InvalidRequest, match=rf"several tenants; add a tenant_id \(--tenant\): {TENANT}, {OTHER}"):
        lake.users.set_active(UserAddress(email="ann@example.com"), True)
    lake.users.set_active(UserAddress(email="ann@example.com", tenant_id=TENANT), True)
    assert {user["tenant_id"] for user in lake.users.list_users()} == {TENANT, OTHER}
    assert [user["tenant_id"] for user in lake.users.list_users(OTHER)] == [OTHER]


def tenant_of(lake: Lake, email: str, **fields: object) -> str:
    """Make a user; its tenant."""
    return str(lake.create_user(parse_object(NewUser, {"email": email, **fields}))["tenant_id"])


def test_the_first_user_gets_what_was_written_while_the_lake_was_open(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    upload(open_tenant(lake), some_rows(2), "run")
    assert tenant_of(lake, "ann@example.com") == OPEN_TENANT_ID
    assert tenant_of(lake, "bob@example.com") == OPEN_TENANT_ID, "the only tenant that there is"


def test_in_an_empty_lake_the_first_user_gets_a_new_tenant_and_others_that_one(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    first = tenant_of(lake, "ann@example.com")
    assert first != OPEN_TENANT_ID
    assert tenant_of(lake, "bob@example.com") == first
    lake.users.set_active(UserAddress(email="ann@example.com"), False)
    lake.users.set_active(UserAddress(email="bob@example.com"), False)
    assert tenant_of(lake, "cem@example.com") == first, "that of users whose keys open nothing counts, too"


def test_among_several_tenants_one_has_to_be_named(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    upload(open_tenant(lake), some_rows(2), "run")
    lake.create_user(ann())
    with pytest.raises(InvalidRequest, match=r"^tenant_id: the lake has 2 tenants") as caught:
        tenant_of(lake, "bob@example.com")
    assert lake.users.tenants_to_choose(lake.tenants_with_data()) == {OPEN_TENANT_ID: [], TENANT: ["ann@example.com"]}
    for text in (f"{OPEN_TENANT_ID} (no users)", f"{TENANT} (ann@example.com)", "(tenant_id)", "(new_tenant)"):
        assert text in caught.value.detail
    assert [user["email"] for user in lake.users.list_users()] == ["ann@example.com"]
    assert tenant_of(lake, "bob@example.com", tenant_id=OPEN_TENANT_ID) == OPEN_TENANT_ID
    assert tenant_of(lake, "cem@example.com", new_tenant=True) not in (OPEN_TENANT_ID, TENANT)


def test_a_refused_first_user_does_not_close_the_lake(new_lake: Callable[[], Lake], lake_dir: Path) -> None:
    lake = new_lake()
    for tenant_id in (TENANT, OTHER):
        upload(lake.tenant(tenant_id), some_rows(2), "run")
    with pytest.raises(InvalidRequest, match=r"^tenant_id: the lake has 2 tenants"):
        tenant_of(lake, "ann@example.com")
    assert not lake.has_users
    assert not new_lake().has_users


def test_tenant_scopes_and_labels_of_a_user_are_changed_and_the_key_stays(new_lake: Callable[[], Lake]) -> None:
    one, other = new_lake(), new_lake()
    made = one.create_user(ann())
    which = UserAddress(email="ann@example.com")

    def change(**fields: object) -> User:
        told = other.users.update(which, parse_object(UserChange, fields))
        found = one.users.find(made["api_key"])
        assert found is not None
        assert found.to_dict() == told
        return found

    assert change(tenant_id=OTHER).tenant_id == OTHER
    assert change(scopes=["admin", "read"]).scopes == "read admin"
    with pytest.raises(InvalidRequest, match=r"^scopes: 'admin' is about whole tables"):
        change(labels={"region": "north"})
    limited = change(scopes=["read"], labels={"region": ["north", "south"]})
    assert limited.limits == {"region": ["north", "south"]}
    with pytest.raises(InvalidRequest, match=r"^scopes: 'admin' is about whole tables"):
        change(scopes=["admin"])
    free = change(labels={})
    assert (free.tenant_id, free.scopes, free.limits) == (OTHER, "read", None)
    assert free.created_time < free.changed_time
    (log,) = {entry["operation"] for entry in commits(one)[1:]} - {"CREATE USER"}
    assert log == "UPDATE USER"


def commits(lake: Lake) -> list[dict[str, Any]]:
    """What the log of the users table says of each commit."""
    paths = sorted(Path(lake.users.table.store.url("_delta_log")).glob("*.json"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [line["commitInfo"] for line in lines if "commitInfo" in line]


def test_a_change_of_a_user_that_cannot_be(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    lake.create_user(ann())
    lake.create_user(ann(tenant_id=OTHER))
    which = UserAddress(email="ann@example.com", tenant_id=TENANT)
    with pytest.raises(Conflict, match=f"tenant {OTHER} has a user 'ann@example.com' already"):
        lake.users.update(which, UserChange(tenant_id=OTHER))
    with pytest.raises(NotFound, match="there is no user"):
        lake.users.update(UserAddress(email="bob@example.com"), UserChange(scopes=["read"]))
    for fields, said in (
        ({}, "nothing to change"),
        ({"tenant_id": "north"}, "tenant_id: 'north' is not a UUID"),
        ({"scopes": []}, "scopes"),
        ({"email": "bob@example.com"}, "email: unknown field"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            parse_object(UserChange, fields)


def test_who_is_not_there_is_not_found(new_lake: Callable[[], Lake]) -> None:
    lake = new_lake()
    lake.create_user(ann())
    for which in (UserAddress(email="bob@example.com"), UserAddress(user_id=OTHER)):
        with pytest.raises(NotFound, match="there is no user"):
            lake.users.regenerate_key(which)
    with pytest.raises(NotFound):
        lake.users.set_active(UserAddress(email="ann@example.com", tenant_id=OTHER), False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"email": "ann"}, "email: 'ann' is not an e-mail address"),
        ({"email": "ann@example.com\n"}, None),
        ({"email": "a nn@example.com"}, "not an e-mail"),
        ({"email": f"{'a' * 250}@example.com"}, "email: "),
        ({"tenant_id": "north"}, "tenant_id: 'north' is not a UUID"),
        ({"scopes": []}, "scopes: "),
        ({"scopes": ["root"]}, "scopes.0: 'root'"),
        ({"scopes": ["read", "admin"], "labels": {"region": "north"}}, "'admin'"),
        ({"labels": {"region": []}}, "labels.region"),
        ({"labels": {"": "north"}}, "labels"),
        ({"labels": {"region": None}}, "labels.region"),
        ({"new_tenant": True}, "tenant_id: a new tenant has an id of its own"),
        ({"key_hash": "0" * 64}, "key_hash: unknown field"),
    ],
)
def test_what_a_user_may_be(fields: dict[str, object], said: str | None) -> None:
    if said is None:
        assert ann(**fields).email == "ann@example.com"
        return
    with pytest.raises(InvalidRequest, match=said):
        ann(**fields)


def test_a_lake_that_has_asked_for_keys_never_opens_again(new_lake: Callable[[], Lake], lake_dir: Path) -> None:
    lake = new_lake()
    lake.enable_users()
    key = lake.create_user(ann())["api_key"]
    (lake_dir / "users").rename(lake_dir.with_name("lost"))
    assert lake.has_users
    reopened = new_lake()
    assert reopened.has_users, "the lake's marker says so too"
    for call in (lambda: reopened.users.find(key), lambda: reopened.create_user(ann())):
        with pytest.raises(Damaged, match="the table users is damaged: it is missing"):
            call()
    assert not (lake_dir / "users" / "_delta_log").exists()


def test_the_table_stays_small_and_sound_whatever_is_done_to_it(new_lake: Callable[[], Lake], lake_dir: Path) -> None:
    lake = new_lake()
    lake.create_user(ann())
    for turn in range(40):
        lake.users.set_active(UserAddress(email="ann@example.com"), bool(turn % 2))
        lake.users.set_active(UserAddress(email="ann@example.com"), bool(turn % 2))
    names = [path.name for path in (lake_dir / "users" / "_delta_log").iterdir()]
    assert len([name for name in names if name.endswith(".json")]) == 42, "nothing is written where nothing changes"
    assert [name for name in names if name.endswith(".checkpoint.parquet")]
    assert Lake.doctor(str(lake_dir)) == []
    assert len(new_lake().users.list_users()) == 1
    victim = next(path for path in (lake_dir / "users").glob("*.parquet") if path.name in live_files(lake))
    victim.write_bytes(b"torn")
    (found,) = Lake.doctor(str(lake_dir))
    assert (found["table"], found["fault"]) == ("users", "damaged data file")


def live_files(lake: Lake) -> set[str]:
    return set(lake.users.table.snapshot().files)
