"""The fault campaign: fail, cut short, fill the disk or die at the N-th file operation, then look at the lake."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from storage import Lake, Tenant
from tests.storage.disk import WRITES, Disk, Fault, Kind, Point
from tests.storage.inspection import disagreements, left_behind, listing
from tests.storage.lakes import difference, open_tenant, read, unstamped
from tests.storage.operations import Operation, copy_lake
from timedb.errors import OutcomeUnknown, TimeDBError

ROOT = Path(__file__).parents[2]


@dataclass
class Verdict:
    """What one try has shown; ``outcome`` is acked, failed, unknown or died."""

    outcome: str
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """One line of the campaign's table."""

    operation: str
    fault: str
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)

    def count(self, at: object, verdict: Verdict, *, alike: int = 1) -> None:
        """Add one try, or several that leave the very same files."""
        self.tried += alike
        self.outcomes[verdict.outcome] += alike
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.problems += [f"{self.operation}, {self.fault} at {at}: {problem}" for problem in verdict.problems]

    def line(self) -> str:
        """The line as text."""
        outcomes = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        counts = f"{self.tried:4d} tried {self.lost:3d} lost {self.doubled:3d} doubled {len(self.problems):3d} problems"
        return f"{self.operation:24} {self.fault:10} {counts}  ({outcomes})"


class Image(NamedTuple):
    """The files that a death at a point leaves, or one after the answer; ``alike`` points in a row leave the same."""

    point: Point | None
    alike: int
    folder: Path


class Trial:
    """One operation, tried on copies of the lake that it starts from.

    Args:
        operation: What is done.
        folder: An empty folder to work in.
    """

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self._folder = folder
        self._template = folder / "template"
        self._copies = 0
        self.before = operation.build(self._template)
        self.after = [*self.before, *operation.added]

    def points(self) -> list[Point]:
        """The file operations of a run in which nothing fails."""
        disk, verdict = self._run(None)
        assert not verdict.problems, verdict.problems
        return disk.points

    def fail(self, fault: Fault) -> Verdict | None:
        """A run in which a file operation fails; None where there is no such operation."""
        disk, verdict = self._run(fault)
        return verdict if disk.fired else None

    def crash_images(self, *, power_cut: bool, chosen: Container[int] | None = None) -> list[Image]:
        """What a death of the process, or a power cut, leaves before and amid the file operations.

        Args:
            power_cut: Leave only what was fsynced.
            chosen: Numbers of the moments, from 1; None: all. The moment after the answer is always among them.
        """
        images: list[Image] = []
        lake = self._copy()
        moments = itertools.count(1)
        seen = ""

        def observe(point: Point | None) -> None:
            nonlocal seen
            number = next(moments)
            if chosen is not None and point is not None and number not in chosen:
                return
            folder = self._folder / f"image-{number}"
            if power_cut:
                disk.power_cut(lake, folder)
            else:
                copy_lake(lake, folder)
            state = listing(folder)
            if state == seen and point is not None:
                shutil.rmtree(folder, ignore_errors=True)
                images[-1] = images[-1]._replace(alike=images[-1].alike + 1)
                return
            seen = state
            images.append(Image(point, 1, folder))

        disk = Disk(lake, observe=observe)
        verdict = self._try(lake, disk, after=lambda: observe(None))
        assert not verdict.problems, verdict.problems
        shutil.rmtree(lake)
        return images

    def kill(self, at: int) -> Verdict | None:
        """A child process that dies by SIGKILL in its ``at``-th file operation; None where there is no such one."""
        lake = self._copy()
        done = subprocess.run(
            [sys.executable, "-m", "tests.storage.campaign_child", str(lake), self.operation.name, str(at)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("TIMEDB_")},
        )
        assert done.returncode in (0, -9), done.stderr
        died = done.returncode == -9
        verdict = self.examine(lake, "died" if died else "acked", None if died else json.loads(done.stdout))
        shutil.rmtree(lake)
        assert died or not verdict.problems, verdict.problems
        return verdict if died else None

    def examine(self, folder: Path, outcome: str, answer: Any = None, opened: Lake | None = None) -> Verdict:
        """Look at a lake after a try: what it holds, whether all its readers agree, and whether a retry settles it.

        Args:
            folder: The lake.
            outcome: acked, failed, unknown or died.
            answer: The operation's answer where it was acked.
            opened: The lake object that the try was made with, which must go on working.
        """
        verdict = Verdict(outcome)
        settled = outcome == "acked"
        try:
            if opened is not None:
                answer = self._settle(open_tenant(opened), folder, verdict, "the same lake", settled, answer)
                settled = True
            with closing(Lake.open(str(folder), self.operation.lake_settings())) as lake:
                self._settle(open_tenant(lake), folder, verdict, "opened anew", settled, answer)
        except Exception as error:
            verdict.problems.append(f"the lake does not work: {error!r} {error.__cause__!r}")
        return verdict

    def _run(self, fault: Fault | None) -> tuple[Disk, Verdict]:
        lake = self._copy()
        disk = Disk(lake, fault=fault)
        verdict = self._try(lake, disk)
        shutil.rmtree(lake)
        return disk, verdict

    def _try(self, folder: Path, disk: Disk, after: Callable[[], None] | None = None) -> Verdict:
        lake: Lake | None = None
        settings = self.operation.lake_settings()
        problems: list[str] = []
        answer = None
        if not self.operation.from_nothing:
            lake = Lake.open(str(folder), settings)
            open_tenant(lake)
        try:
            with disk.watched():
                outcome = "failed"
                try:
                    if lake is None:
                        lake = Lake.open(str(folder), settings)
                    answer = self.operation.run(open_tenant(lake))
                    outcome = "acked"
                    if after is not None:
                        with disk.unwatched():
                            after()
                except OutcomeUnknown:
                    outcome = "unknown"
                except TimeDBError:
                    pass
                except Exception as error:
                    problems.append(f"raised {type(error).__name__}, no error of ours: {error}")
            if outcome in ("acked", "failed") and not disk.hinders_clean_up:
                problems += [f"left behind after it {outcome}: {path}" for path in left_behind(folder)]
            verdict = self.examine(folder, outcome, answer, lake)
        finally:
            if lake is not None:
                lake.close()
        verdict.problems[:0] = problems
        return verdict

    def _settle(
        self, tenant: Tenant, folder: Path, verdict: Verdict, who: str, settled: bool, answer: Any
    ) -> dict[str, Any]:
        """Judge what stands, repeat the operation, judge again; the answer."""
        stood = self._judge(tenant, verdict, who, must_stand=settled)
        verdict.problems += [f"{who}: {problem}" for problem in disagreements(tenant, folder)]
        if stood and verdict.outcome == "failed" and not settled and self.operation.added:
            verdict.problems.append(f"{who}: a write is there although it failed")
        if settled and not self.operation.holds(tenant):
            verdict.problems.append(f"{who}: the operation was acknowledged and is gone")
        retried: dict[str, Any] = self.operation.run(tenant)
        if answer is not None and self.operation.answers_again and retried != answer:
            verdict.problems.append(f"{who}: a retry answers {retried}, the first time was {answer}")
        self._judge(tenant, verdict, f"{who}, after a retry", must_stand=True)
        if not self.operation.holds(tenant):
            verdict.problems.append(f"{who}: the operation has not come true")
        return retried

    def _judge(self, tenant: Tenant, verdict: Verdict, who: str, *, must_stand: bool) -> bool:
        """Count what is lost and doubled; whether the operation's rows stand."""
        audit = read(tenant)
        lost, _ = difference(self.after if must_stand else self.before, audit)
        _, doubled = difference(self.after, audit)
        verdict.lost += lost.total()
        verdict.doubled += doubled.total()
        verdict.problems += [f"{who}: lost {row}" for row in list(lost)[:3]]
        verdict.problems += [f"{who}: doubled {row}" for row in list(doubled)[:3]]
        stands = unstamped(audit) == unstamped(self.after)
        if not stands and unstamped(audit) != unstamped(self.before):
            verdict.problems.append(f"{who}: holds neither all nor nothing of the operation ({len(audit)} rows)")
        return stands

    def _copy(self) -> Path:
        self._copies += 1
        lake = self._folder / f"lake-{self._copies}"
        copy_lake(self._template, lake)
        return lake


def spread(count: int, most: int | None, *, shift: int = 0) -> list[int]:
    """At most so many of the numbers from 1 to ``count``, evenly; ``shift`` takes others in their stead."""
    if most is None or count <= most:
        return list(range(1, count + 1))
    return sorted({(index * count // most + shift) % count + 1 for index in range(most)})


def failing(trial: Trial, kind: Kind, points: Sequence[Point], most: int | None = None, *, shift: int = 0) -> Tally:
    """One line of the table: a kind of fault at every file operation of an operation, or at some of them.

    Args:
        trial: The operation.
        kind: The fault.
        points: The file operations of a run without faults.
        most: How many of them are tried; None: all, and further until there is no such operation any more.
        shift: See :func:`spread`.
    """
    tally = Tally(trial.operation.name, kind)
    open_to = [
        point.number
        for point in points
        if Fault(kind, point.number).hits(point.number, point.name)
        and (kind != "doubt" or point.name == "link")  # where a commit's outcome is in doubt
    ]
    numbers: Iterable[int] = (open_to[index - 1] for index in spread(len(open_to), most, shift=shift))
    for number in numbers if most is not None else itertools.count(1):
        verdict = trial.fail(Fault(kind, number))
        if verdict is not None:
            tally.count(number, verdict)
        elif number > len(points) + 10:
            break  # past the end, also of runs that take a few operations more
    return tally


def dying(trial: Trial, points: Sequence[Point], most: int | None = None, *, power_cut: bool, shift: int = 0) -> Tally:
    """One line: the process dies, or the power goes, before and amid every file operation, or some of them."""
    tally = Tally(trial.operation.name, "power cut" if power_cut else "death")
    moments = sum(2 if point.name in WRITES else 1 for point in points)
    chosen = None if most is None else spread(moments, most, shift=shift)
    for point, alike, folder in trial.crash_images(power_cut=power_cut, chosen=chosen):
        tally.count(point, trial.examine(folder, "acked" if point is None else "died"), alike=alike)
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def killing(trial: Trial, numbers: Iterable[int]) -> Tally:
    """One line: a process of its own is killed at its N-th file operation, until N is past the end."""
    tally = Tally(trial.operation.name, "kill -9")
    for number in numbers:
        verdict = trial.kill(number)
        if verdict is None:
            break
        tally.count(number, verdict)
    return tally
