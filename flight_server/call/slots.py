"""What a server lets in: slots for the calls that cost, and the gate that closes when it stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from timedb.contract.errors import Busy, Timeout

__all__ = ["Gate", "Lease", "Slots"]

_NEVER = float("inf")
_LOOK_SECONDS = 0.1


class Lease:
    """One slot, held by one call until it is given back, its time is up, or its client has been waited for too long.

    Attributes:
        tenant_id: Whose call it is.
    """

    def __init__(
        self, slots: Slots, tenant_id: str, seconds: float, idle_seconds: float, still_welcome: Callable[[], None]
    ) -> None:
        self.tenant_id = tenant_id
        self._slots = slots
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._still_welcome = still_welcome
        self._deadline = time.monotonic() + seconds
        self._waiting_since = _NEVER

    @property
    def expired(self) -> bool:
        """Whether the call has had its time, or waits too long for its client."""
        now = time.monotonic()
        return now >= self._deadline or now - self._waiting_since >= self._idle_seconds

    def wait(self) -> None:
        """From now on the call waits for its client: to send something, or to take what there is."""
        self._waiting_since = time.monotonic()

    def check(self) -> None:
        """The call goes on, and waits for its client no longer.

        Raises:
            Timeout: it has had its time, or waited too long; the slot may be another's by now.
            Unauthenticated: its key has been revoked meanwhile.
        """
        now = time.monotonic()
        if now >= self._deadline:
            raise Timeout(f"the call took longer than {self._seconds:g} seconds")
        if now - self._waiting_since >= self._idle_seconds:
            raise Timeout(f"the client neither sent nor took anything for {self._idle_seconds:g} seconds")
        self._waiting_since = _NEVER
        self._still_welcome()

    def release(self) -> None:
        """Give the slot back; again is no error."""
        self._slots.take_back(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Slots:
    """At most so many calls of one kind at once, and of one tenant fewer; one more is refused, or waits its turn.

    A place that becomes free goes to the tenant of those that wait that has the fewest, and then to who came first.

    A peer that stalls blocks its handler inside gRPC, where no Python code can end it (pyarrow has no deadline of its
    own). So a lease that is over its time counts no longer, and the call itself ends as soon as the peer moves again.

    Attributes:
        what: How an error calls the calls, say "reads".

    Args:
        what: As above.
        limit: How many may run at once.
        seconds: How long one may last.
        tenant_limit: How many of one tenant may run at once; None: all of them.
        idle_seconds: How long one may wait for its client.
        wait_seconds: How long one waits for a slot before it is refused.
    """

    def __init__(
        self,
        what: str,
        limit: int,
        seconds: float,
        *,
        tenant_limit: int | None = None,
        idle_seconds: float = _NEVER,
        wait_seconds: float = 0.0,
    ) -> None:
        self.what = what
        self._wait_seconds = wait_seconds
        self._limit = limit
        self._seconds = seconds
        self._tenant_limit = limit if tenant_limit is None else min(tenant_limit, limit)
        self._idle_seconds = idle_seconds
        # Reentrant: the garbage collector may end a forgotten stream, and so its lease, in the middle of `lease`.
        self._lock = threading.RLock()
        self._freed = threading.Condition(self._lock)
        self._leases: set[Lease] = set()
        self._waiting: list[tuple[object, str]] = []

    def lease(
        self,
        tenant_id: str = "",
        still_welcome: Callable[[], None] = lambda: None,
        *,
        still_wanted: Callable[[], None] = lambda: None,
    ) -> Lease:
        """Take a slot for a call of a tenant.

        Args:
            tenant_id: The tenant.
            still_welcome: Called whenever the lease is checked; what it raises ends the call.
            still_wanted: Called while it waits for its turn; what it raises ends the wait.

        Raises:
            Busy: all are taken, or all that the tenant may have.
        """
        turn, deadline = object(), time.monotonic() + self._wait_seconds
        with self._lock:
            self._waiting.append((turn, tenant_id))
            try:
                while refusal := self._refusal_now(turn, tenant_id):
                    if time.monotonic() >= deadline:
                        raise Busy(refusal)
                    self._freed.wait(_LOOK_SECONDS)
                    still_wanted()
            finally:
                self._waiting.remove((turn, tenant_id))
                self._freed.notify_all()
            lease = Lease(self, tenant_id, self._seconds, self._idle_seconds, still_welcome)
            self._leases.add(lease)
            return lease

    def _refusal_now(self, turn: object, tenant_id: str) -> str | None:
        """Why a call that waits has no slot yet; leases that are over their time are given up first."""
        if self._refusal(tenant_id):
            self._leases = {lease for lease in list(self._leases) if not lease.expired}
        if refusal := self._refusal(tenant_id):
            return refusal
        running = [lease.tenant_id for lease in list(self._leases)]
        ready = [
            (running.count(tenant), place)
            for place, (_, tenant) in enumerate(self._waiting)
            if not self._refusal(tenant)
        ]
        return None if self._waiting[min(ready)[1]][0] is turn else f"others wait for {self.what} already; retry"

    def _refusal(self, tenant_id: str) -> str | None:
        if len(self._leases) >= self._limit:
            return f"{self._limit} {self.what} run already; retry"
        if len(self._leases) < self._tenant_limit:
            return None
        if sum(lease.tenant_id == tenant_id for lease in list(self._leases)) >= self._tenant_limit:
            return f"{self._tenant_limit} {self.what} of the tenant run already; retry"
        return None

    def take_back(self, lease: Lease) -> None:
        """Free the slot of a lease, if it still has one."""
        with self._lock:
            self._leases.discard(lease)
            self._freed.notify_all()

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return len(self._waiting)

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
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

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
