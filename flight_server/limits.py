"""What a server lets in: slots for the calls that cost, and the gate that closes when it stops."""

from __future__ import annotations

import threading
import time

from timedb.errors import Busy, Timeout

__all__ = ["Gate", "Lease", "Slots"]


class Lease:
    """One slot, held by one call until it is given back or its time is up."""

    def __init__(self, slots: Slots, seconds: float) -> None:
        self._slots = slots
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    @property
    def expired(self) -> bool:
        """Whether the call has had its time."""
        return time.monotonic() >= self._deadline

    def check(self) -> None:
        """Raise :class:`Timeout` once the call has had its time."""
        if self.expired:
            raise Timeout(f"the call took longer than {self._seconds:g} seconds")

    def release(self) -> None:
        """Give the slot back; again is no error."""
        self._slots.take_back(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Slots:
    """At most so many calls of one kind at once; one more is refused, never queued.

    A peer that stalls blocks its handler inside gRPC, where no Python code can end it (pyarrow has no deadline of its
    own). So a lease that is over its time counts no longer, and the call itself ends as soon as the peer moves again.

    Args:
        what: How an error calls the calls, say "reads".
        limit: How many may run at once.
        seconds: How long one may last.
    """

    def __init__(self, what: str, limit: int, seconds: float) -> None:
        self._what = what
        self._limit = limit
        self._seconds = seconds
        # Reentrant: the garbage collector may end a forgotten stream, and so its lease, in the middle of `lease`.
        self._lock = threading.RLock()
        self._leases: set[Lease] = set()

    def lease(self) -> Lease:
        """Take a slot.

        Raises:
            Busy: all are taken.
        """
        with self._lock:
            if len(self._leases) >= self._limit:
                self._leases = {lease for lease in list(self._leases) if not lease.expired}
            if len(self._leases) >= self._limit:
                raise Busy(f"{self._limit} {self._what} run already; retry")
            lease = Lease(self, self._seconds)
            self._leases.add(lease)
            return lease

    def take_back(self, lease: Lease) -> None:
        """Free the slot of a lease, if it still has one."""
        with self._lock:
            self._leases.discard(lease)

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        with self._lock:
            return len(self._leases)


class Gate:
    """Counts the calls inside, and lets nobody in any more once it is closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def enter(self) -> None:
        """Let a call in.

        Raises:
            Busy: the server is stopping.
        """
        with self._changed:
            if self._closed:
                raise Busy("the server is stopping; retry")
            self._inside += 1

    def leave(self) -> None:
        """Let it out again."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    @property
    def inside(self) -> int:
        """How many calls are inside."""
        with self._changed:
            return self._inside

    def close(self, seconds: float) -> bool:
        """Let nobody in any more and wait for those inside.

        Returns:
            Whether all were out within ``seconds``.
        """
        with self._changed:
            self._closed = True
            return self._changed.wait_for(lambda: self._inside == 0, timeout=seconds)
