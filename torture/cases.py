"""One case of the real torture: which fault is done to which batch, beside which endpoint; and what came of it."""

import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torture.processes import Served, Stuck
from torture.scene import Account, Broken, Scene
from torture.stand import Stand, served_for_all
from torture.weather import Weather, weather

Play = Callable[[Stand], None]

SPANS = {"queued": (12, 40), "held": (8, 25), "streamed": (8, 20)}
"""How many runs each job may have, where a case does not say."""

FEW = {"queued": 12, "held": 6, "streamed": 6}

SLOW_MS = 400
"""How long a handler takes, so that jobs are surely in flight."""


@dataclass(frozen=True)
class Case:
    """
    One thing to do to a batch.

    Attributes:
        fault: The row that it counts in; *where* is process, disk, network, service or scheduling, and *how* the way
            in which it is tried.
        has_weather: Its endpoint is one that can go wrong on purpose, not one of ``runner serve``.
        lost: The jobs' ``on_answer_lost``; None leaves it to chance, as with *runs*, *ms* and *width*.
    """

    name: str
    fault: str
    where: str
    how: str
    play: Play
    has_weather: bool = False
    lost: str | None = None
    runs: Mapping[str, int] | None = None
    ms: int | None = None
    width: int | None = None

    def drawn(self, chance: random.Random) -> dict[str, Any]:
        """What its batch is like. As much is drawn, whatever the case says, so that one case tells all of a seed."""
        runs = {job: chance.randint(*span) for job, span in SPANS.items()}
        lost, ms, width = chance.choice(("fail", "resubmit")), chance.choice((0, 4, 12)), chance.choice((3, 8, 20))
        return {
            "runs": self.runs or runs,
            "lost": self.lost or lost,
            "ms": ms if self.ms is None else self.ms,
            "width": self.width or width,
        }


@dataclass
class Lane:
    """The endpoints of one case after another; each is there once a case needs it."""

    stack: ExitStack

    @cached_property
    def served(self) -> Served:
        """One that outlives every runner."""
        return self.stack.enter_context(served_for_all())

    @cached_property
    def weather(self) -> Weather:
        """One that can go wrong on purpose."""
        return self.stack.enter_context(weather())


@contextmanager
def lane() -> Iterator[Lane]:
    """A lane, whose endpoints are gone after the block."""
    with ExitStack() as stack:
        yield Lane(stack)


def play(case: Case, beside: Lane, seed: int) -> Account:
    """Play *case*; its problems say how to play it again."""
    chance = random.Random(f"{seed} {case.name}")
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        scene = Scene.make(folder / "case", **case.drawn(chance))
        served = beside.weather if case.has_weather else beside.served
        stand = Stand(scene, served, chance)
        try:
            case.play(stand)
        except (Stuck, Broken, OSError) as error:
            stand.account.problems.append(f"{type(error).__name__}: {error}")
        except Exception:  # noqa: BLE001 - what a case did not reckon with is a finding, and the others go on
            stand.account.problems.append(traceback.format_exc())
        finally:
            if case.has_weather:
                beside.weather.clear_up()
            stand.end_processes()
        stand.account.problems = [f"[{case.name}, seed {seed}] {one}" for one in stand.account.problems]
        return stand.account
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Row = dict[str, str | int]


def rows(cases: Sequence[Case], accounts: Sequence[Account]) -> list[Row]:
    """What the cases came to, by fault, in the order of the cases. What was tried is SIGKILLs where there were any."""
    found: dict[str, Row] = {}
    for case, account in zip(cases, accounts, strict=True):
        row = found.setdefault(
            case.fault,
            {
                "fault": case.fault,
                "where": case.where,
                "how": case.how,
                "tried": 0,
                "runs": 0,
                "lost": 0,
                "paid_twice": 0,
                "sent_again_knowingly": 0,
            },
        )
        counted = {
            "tried": account.tried or account.kills or 1,
            "runs": account.runs,
            "lost": account.lost,
            "paid_twice": account.paid_twice,
            "sent_again_knowingly": account.resent,
        }
        for name, count in counted.items():
            row[name] = int(row[name]) + count
    return list(found.values())
