"""The fault campaign: fail, cut short, fill the disk or die at the N-th file operation, then look at the lake."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.storage.disk import WRITES, Disk, Fault, Kind, Point
from tests.storage.inspection import disagreements, left_behind, listing
from tests.storage.lakes import difference, open_tenant, read, unstamped
from tests.storage.operations import Operation, copy_lake
from tests.storage.results import Tally
from timedb.contract.errors import OutcomeUnknown, TimeDBError
from timedb.storage import Lake, Tenant

ROOT = Path(__file__).parents[2]


@dataclass
class Verdict:
    """What one try has shown; ``outcome`` is acked, failed, unknown or died, ``compared``: all readers were heard."""

    outcome: str
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)
    compared: bool = False


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
        disk, verdict = self._run(None, examine=False)
        assert not verdict.problems, verdict.problems
        assert verdict.outcome == "acked"
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

    def _run(self, fault: Fault | None, *, examine: bool = True) -> tuple[Disk, Verdict]:
        lake = self._copy()
        disk = Disk(lake, fault=fault)
        verdict = self._try(lake, disk, examine=examine)
        shutil.rmtree(lake)
        return disk, verdict

    def _try(
        self, folder: Path, disk: Disk, after: Callable[[], None] | None = None, *, examine: bool = True
    ) -> Verdict:
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
            verdict = self.examine(folder, outcome, answer, lake) if examine else Verdict(outcome)
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
        if not verdict.compared:  # what the fault itself has left; a retry changes it
            verdict.problems += [f"{who}: {problem}" for problem in disagreements(tenant, folder)]
            verdict.compared = True
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
    """A kind of fault at every file operation that it can hit, or at some of them.

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
    for number in [open_to[index - 1] for index in spread(len(open_to), most, shift=shift)]:
        if (verdict := trial.fail(Fault(kind, number))) is not None:
            _count(tally, number, verdict)
    # A run that is slowed or disturbed may take a few operations more.
    beyond = itertools.count(len(points) + 1) if most is None and kind not in ("doubt", "short") else ()
    for number in beyond:
        if (verdict := trial.fail(Fault(kind, number))) is None:
            break
        _count(tally, number, verdict)
    return tally


def dying(trial: Trial, points: Sequence[Point], most: int | None = None, *, power_cut: bool, shift: int = 0) -> Tally:
    """The process dies, or the power goes, before and amid every file operation, or some of them."""
    tally = Tally(trial.operation.name, "power cut" if power_cut else "death")
    moments = sum(2 if point.name in WRITES else 1 for point in points)
    chosen = None if most is None else spread(moments, most, shift=shift)
    for point, alike, folder in trial.crash_images(power_cut=power_cut, chosen=chosen):
        _count(tally, point, trial.examine(folder, "acked" if point is None else "died"), alike=alike)
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def killing(trial: Trial, numbers: Iterable[int], points: Sequence[Point] = ()) -> Tally:
    """A process of its own is killed at some of its file operations, then at the next ones until N is past the end.

    Args:
        trial: The operation.
        numbers: Which file operations, counted from 1.
        points: The file operations of a run without faults; where they are given, it goes on behind them.
    """
    tally = Tally(trial.operation.name, "kill -9")
    for number in numbers:
        if (verdict := trial.kill(number)) is not None:
            _count(tally, number, verdict)
    for number in itertools.count(len(points) + 1) if points else ():
        if (verdict := trial.kill(number)) is None:
            break
        _count(tally, number, verdict)
    return tally


def _count(tally: Tally, at: object, verdict: Verdict, *, alike: int = 1) -> None:
    """Add one try, or several that leave the very same files."""
    tally.tried += alike
    tally.outcomes[verdict.outcome] += alike
    tally.lost += verdict.lost
    tally.doubled += verdict.doubled
    tally.problems += [f"{tally.operation}, {tally.fault} at {at}: {problem}" for problem in verdict.problems]
