"""What all workers of a soak share: where the service is, what was done, and what was wrong."""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import timedb as td
from tests.soak.ledger import Ledger
from timedb.contract.errors import Busy

MAX_SHOWN = 20


class Work:
    """The state of a soak. Thread-safe.

    Attributes:
        flight_url, rest_url: The service.
        ledgers: Of the writers of small runs.
        bulk: Of the writer of large ones.
        done: How often each operation was done.
        busy: How often one was refused as ``busy``.
        seconds: How long each took, by operation.
        wrong: Whatever went wrong.
    """

    def __init__(self, flight_url: str, rest_url: str) -> None:
        self.flight_url = flight_url
        self.rest_url = rest_url
        self.ledgers: list[Ledger] = []
        self.bulk: Ledger | None = None
        self.done: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Have all workers end."""
        self._stop.set()

    def pause(self, seconds: float) -> bool:
        """Wait a while; whether to go on."""
        return not self._stop.wait(seconds)

    @property
    def going(self) -> bool:
        """Whether to go on."""
        return not self._stop.is_set()

    def fault(self, what: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.wrong.append(what)

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Count an operation and its time; whatever it raises is wrong, but ``busy``."""
        started = time.perf_counter()
        try:
            yield
        except Busy:
            with self._lock:
                self.busy[name] += 1
            return
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.fault(f"{name}: {type(error).__name__}: {error} ({place.name}:{place.lineno})"[:1000])
            return
        with self._lock:
            self.done[name] += 1
            self.seconds[name].append(time.perf_counter() - started)


class Worker(threading.Thread):
    """Does one operation after the other, drawn by weight, until the soak ends."""

    def __init__(self, work: Work, seed: int, seconds: float) -> None:
        super().__init__(name=f"{type(self).__name__}-{seed}", daemon=True)
        self.work = work
        self.chance = random.Random(seed)
        self.client = td.connect(work.flight_url, timeout=60, stream_timeout=120)
        self._seconds = seconds

    def operations(self) -> Mapping[Callable[[], None], int]:
        """What it does, with weights."""
        raise NotImplementedError

    def run(self) -> None:
        """Work."""
        known = self.operations()
        with self.client:
            while self.work.pause(self._seconds * self.chance.uniform(0.5, 1.5)):
                (do,) = self.chance.choices(list(known), list(known.values()))
                with self.work.operation(f"{do.__name__.replace('_', ' ')}"):
                    do()
        self.leave()

    def leave(self) -> None:
        """Give back what it holds."""
