"""The store on S3, Azure or Google Cloud. Credentials and endpoints come from the usual environment variables.

The compare-and-set of the Delta log is a conditional put (``If-None-Match: *``); a store that does not honour it would
lose commits, so it is tried out before the store is used.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import from_url

from timedb.contract.errors import InvalidRequest
from timedb.contract.wire import quoted
from timedb.storage.delta.store import StoredFile

__all__ = ["PROBE_FOLDER", "ObjectStore", "check_conditional_put"]

PROBE_FOLDER = "timedb-probe"
_UNSAFE = ("AWS_S3_LOCKING_PROVIDER", "AWS_S3_ALLOW_UNSAFE_RENAME")


class ObjectStore:
    """Files below one address of an object store.

    Args:
        url: The address, such as ``s3://bucket/prefix``.
        staging: A local folder for files on their way in.

    Raises:
        InvalidRequest: the address has a query or a fragment, which would be cut off and name another place.
    """

    def __init__(self, url: str, staging: Path | None = None) -> None:
        if "?" in url or "#" in url:
            raise InvalidRequest(f"lake: {quoted(url)} has a ? or #, and the address of a lake has neither")
        self._url = url.rstrip("/")
        self._store = from_url(self._url)
        self._staging = staging or Path(tempfile.mkdtemp(prefix="timedb-staging-"))

    def url(self, path: str = "") -> str:
        """The address of a file."""
        return f"{self._url}/{path}" if path else self._url

    def staged_url(self, path: str) -> str:
        """The local path of a staged file."""
        return str(self._staging / path)

    def below(self, path: str) -> ObjectStore:
        """The store of a folder inside this one."""
        return ObjectStore(self.url(path), self._staging / path)

    def read(self, path: str) -> bytes:
        """All bytes of a file; ``FileNotFoundError`` where there is none, ``OSError`` where the store fails."""
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(path) from error
        except BaseError as error:
            raise OSError(errno.EIO, "the object store could not be read") from error

    def open(self, path: str) -> pa.BufferReader:
        """A file, fetched whole: pyarrow reads most of it, and few large requests are the fastest here."""
        return pa.BufferReader(self.read(path))

    def check(self, path: str) -> None:
        """Nothing: an object store keeps checksums of its objects itself, and to fetch a file whole costs too much."""

    def exists(self, path: str) -> bool:
        """Whether a file of that name, or one below it, is there."""
        return any(True for _ in self.list(path))

    def list(self, folder: str = "") -> Iterator[StoredFile]:
        """Every file below a folder, or the file of that name."""
        try:
            for chunk in obstore.list(self._store, prefix=folder or None):
                for meta in chunk:
                    yield StoredFile(meta["path"], meta["size"], _seconds(meta["last_modified"]))
            if folder:
                meta = obstore.head(self._store, folder)
                yield StoredFile(folder, meta["size"], _seconds(meta["last_modified"]))
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise OSError(errno.EIO, "the object store could not be listed") from error

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Publish a file by conditional put; False where somebody has the name already.

        Raises:
            OSError: it is not known whether it was published.
        """
        try:
            obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            # The store answers so to the retry of a put that did arrive, too.
            return self.read(path) == data
        except BaseError as error:
            raise OSError(errno.EIO, "the object store did not take the file") from error
        return True

    def put_new(self, path: str, data: bytes | pa.Buffer) -> None:
        """Publish a file of a new name."""
        self.replace(path, bytes(data))

    def replace(self, path: str, data: bytes) -> None:
        """Publish a file in place of the one that may be there."""
        try:
            obstore.put(self._store, path, data, use_multipart=False)
        except BaseError as error:
            raise OSError(errno.EIO, "the object store did not take the file") from error

    def stage(self, path: str) -> Path:
        """Where to write a new file."""
        target = self._staging / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def persist(self, path: str) -> None:
        """Nothing: an object is written whole, when it is published."""

    def publish(self, path: str) -> None:
        """Upload a staged file."""
        try:
            obstore.put(self._store, path, self._staging / path)
        except BaseError as error:
            raise OSError(errno.EIO, "the object store did not take the file") from error

    def release(self, path: str) -> None:
        """Remove the local copy."""
        (self._staging / path).unlink(missing_ok=True)

    def sync(self, path: str) -> None:
        """Nothing: what an object store has taken is durable."""

    def delete(self, path: str) -> None:
        """Remove a file and its staged copy."""
        (self._staging / path).unlink(missing_ok=True)
        try:
            obstore.delete(self._store, path)
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise OSError(errno.EIO, "the object store did not delete the file") from error

    def delete_all(self) -> None:
        """Remove everything below the address."""
        for file in list(self.list()):
            self.delete(file.path)
        shutil.rmtree(self._staging, ignore_errors=True)

    def delete_folder(self) -> None:
        """Nothing: an object store has no folders."""


def check_conditional_put(store: ObjectStore) -> None:
    """Try out that of two puts under one name the second fails.

    Raises:
        InvalidRequest: the store or its settings cannot be trusted with commits, or it cannot be reached.
    """
    for name in _UNSAFE:
        if os.environ.get(name):
            raise InvalidRequest(f"{name}: is set, but commits are guarded by conditional put alone; unset it")
    probe = f"{PROBE_FOLDER}/{uuid4().hex}"
    try:
        first = store.put_if_absent(probe, b"1")
        second = store.put_if_absent(probe, b"2")
        store.delete(probe)
    except OSError:
        raise InvalidRequest("lake: the object store cannot be reached, or does not take files") from None
    if not first or second:
        raise InvalidRequest("lake: the object store does not honour If-None-Match, so commits could be lost")


def _seconds(moment: datetime) -> float:
    return moment.astimezone(UTC).timestamp()
