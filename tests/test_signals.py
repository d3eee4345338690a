"""What signals do to a batch: real processes, a served endpoint that outlives them, at every stage of a batch."""

import asyncio
import io
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes import in_virtual_time
from stage import RUNS, Proxy, Stage, pause, said, staged_server
from terminal import Ran, Server, finish

from runner.batch import Folder
from runner.commands.run import Signals
from runner.ledger import Ledger
from runner.live import Live
from runner.progress import Display
from runner.tally import Tally

AT_ONCE = 6
"""So many batches run at the same time: most of it is waiting."""

Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An endpoint that outlives every runner; each batch has two jobs with it at most."""
    with staged_server(tmp_path_factory.mktemp("served"), workers=2 * AT_ONCE) as found:
        yield found


# The stages of a batch


def at_start(stage: Stage, proxy: Proxy) -> Process:
    """Nothing was submitted yet: the first word of the endpoint is awaited."""
    proxy.hold("health")
    process = stage.start("--drain", "60s")
    proxy.wait_for("health")
    return process


def in_the_middle(stage: Stage, proxy: Proxy, drain: str = "1s") -> Process:
    """Runs 0 and 1 are settled, 2 and 3 with their handlers, 4 and 5 pending."""
    stage.go(0, 1)
    process = stage.start("--drain", drain)
    stage.wait_settled(2)
    stage.wait_began(2, 3)
    return process


def at_end(stage: Stage, proxy: Proxy, drain: str = "1s") -> Process:
    """All are settled but run 5, which is with its handler."""
    stage.go(0, 1, 2, 3, 4)
    process = stage.start("--drain", drain)
    stage.wait_settled(5)
    stage.wait_began(5)
    return process


def when_over(stage: Stage, proxy: Proxy) -> Process:
    """All are settled: the last word of the endpoint is awaited."""
    stage.go(0, 1, 2, 3, 4)
    process = stage.start("--drain", "60s")
    stage.wait_settled(5)
    proxy.hold("health")
    before = proxy.seen["health"]
    stage.go(5)
    proxy.wait_for("health", before + 1)
    return process


# What is done then


def once(number: signal.Signals) -> Callable[[Process, Stage, Proxy], None]:
    """One signal; run 2 ends while it is followed."""

    def act(process: Process, stage: Stage, _: Proxy) -> None:
        process.send_signal(number)
        said(process, f"{number.name}: starting nothing more")
        stage.go(2)

    return act


def twice(number: signal.Signals) -> Callable[[Process, Stage, Proxy], None]:
    """A second one a second after the first."""

    def act(process: Process, stage: Stage, proxy: Proxy) -> None:
        once(number)(process, stage, proxy)
        pause(1.05)
        process.send_signal(number)

    return act


def bounced(process: Process, stage: Stage, proxy: Proxy) -> None:
    """Two, as quickly as a key bounces."""
    process.send_signal(signal.SIGINT)
    said(process, "SIGINT: starting nothing more")
    process.send_signal(signal.SIGINT)
    stage.go(2)


def cancelled(process: Process, stage: Stage, proxy: Proxy) -> None:
    """Ctrl-C twice, and no run ends by itself."""
    process.send_signal(signal.SIGINT)
    said(process, "SIGINT: starting nothing more")
    pause(1.05)
    process.send_signal(signal.SIGINT)


def left_at_once(process: Process, stage: Stage, proxy: Proxy) -> None:
    """Ctrl-C thrice, while the endpoint does not answer to the cancelling."""
    proxy.hold("cancel")
    cancelled(process, stage, proxy)
    proxy.wait_for("cancel")
    pause(1.05)
    process.send_signal(signal.SIGINT)


@dataclass(frozen=True)
class Case:
    """What is done when, and what it must come to: before the resume, and after it."""

    reach: Callable[..., Process]
    act: Callable[[Process, Stage, Proxy], None]
    code: int
    verdict: str | None
    outcomes: dict[int, str]
    left: tuple[int, ...] = ()
    resumed: tuple[int, str] = (0, "pass")
    drain: str | None = None


def completed(*numbers: int, **more: Any) -> dict[int, str]:
    """These runs completed; *more* are of other outcomes."""
    return dict.fromkeys(numbers, "completed")


CANCELLED_2_3 = completed(0, 1) | {2: "cancelled", 3: "cancelled"}
CANCELLED_5 = completed(0, 1, 2, 3, 4) | {5: "cancelled"}
ALL = completed(*range(RUNS))
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

CASES = {
    "Ctrl-C at the start": Case(at_start, once(INT), 130, "interrupted", {}),
    "SIGTERM at the start": Case(at_start, once(TERM), 143, "interrupted", {}),
    "Ctrl-C in the middle": Case(in_the_middle, once(INT), 130, "interrupted", completed(0, 1, 2), (3,)),
    "Ctrl-C that bounces in the middle": Case(in_the_middle, bounced, 130, "interrupted", completed(0, 1, 2), (3,)),
    "SIGTERM twice in the middle": Case(
        in_the_middle, twice(TERM), 143, "interrupted", completed(0, 1, 2), (3,), drain="2s"
    ),
    "Ctrl-C twice in the middle": Case(
        in_the_middle, cancelled, 130, "interrupted", CANCELLED_2_3, resumed=(1, "fail"), drain="60s"
    ),
    "Ctrl-C thrice in the middle": Case(in_the_middle, left_at_once, 130, None, completed(0, 1), (2, 3), drain="60s"),
    "SIGHUP at the end": Case(at_end, once(HUP), 143, "interrupted", completed(0, 1, 2, 3, 4), (5,)),
    "Ctrl-C twice at the end": Case(
        at_end, cancelled, 130, "interrupted", CANCELLED_5, resumed=(130, "interrupted"), drain="60s"
    ),
    "Ctrl-C thrice at the end": Case(at_end, left_at_once, 130, None, completed(0, 1, 2, 3, 4), (5,), drain="60s"),
    "Ctrl-C when all is settled": Case(when_over, once(INT), 0, "pass", ALL),
    "SIGTERM when all is settled": Case(when_over, once(TERM), 0, "pass", ALL),
}


@dataclass(frozen=True)
class Played:
    """What came of a case: of the process, of the batch, at the endpoint; and of the resume."""

    stage: Stage
    ran: Ran
    verdict: str | None
    outcomes: dict[int, str | None]
    statuses: dict[int, list[str]]
    resumed: tuple[int, str]


def play(case: Case, stage: Stage, proxy: Proxy) -> Played:
    """Carry *case* to its end, and go on with the batch; whatever happens its files are sound."""
    process = case.reach(stage, proxy, *([case.drain] if case.drain else []))
    case.act(process, stage, proxy)
    ran = finish(process)
    is_reported = case.verdict is not None
    stage.check_sound(reported=is_reported)
    verdict = stage.health()["verdict"] if is_reported else None
    outcomes, statuses = stage.outcomes(), stage.statuses()
    with Ledger.read_only(stage.batch.ledger) as ledger:
        known = {one.run.index: [one.job_id] for one in ledger.open_runs()}
    assert known == {n: ids for n, ids in stage.accepted().items() if n not in outcomes}
    proxy.release()
    stage.go()
    again = stage.run("--resume") if len(outcomes) < RUNS else stage.runner("resume", stage.name)
    stage.check_whole()
    return Played(stage, ran, verdict, outcomes, statuses, (again.code, stage.health()["verdict"]))


@pytest.fixture(scope="module")
def played(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Played]]]:
    """Every case, played."""

    def one(case: Case, number: int) -> Played:
        with Proxy(server) as proxy:
            return play(case, Stage.make(tmp_path_factory.mktemp(f"case{number}"), server, url=proxy.url), proxy)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(one, case, number) for number, (name, case) in enumerate(CASES.items())}


@pytest.mark.parametrize("name", CASES)
def test_what_a_signal_does(played: dict[str, Future[Played]], name: str) -> None:
    """What is paid for is neither lost nor cancelled unasked, nothing is sent twice, and a resume finishes it."""
    case, found = CASES[name], played[name].result()
    assert (found.ran.code, found.verdict) == (case.code, case.verdict), found.ran.err
    assert found.outcomes == case.outcomes
    shown = {"completed": "COMPLETED", "cancelled": "CANCELLED"}
    wanted = {n: [shown[outcome]] for n, outcome in case.outcomes.items()}
    assert found.statuses == wanted | {n: ["IN_PROGRESS"] for n in case.left}
    assert found.resumed == case.resumed
    assert "Traceback" not in found.ran.err + found.ran.out


# Which signals count


class Heard(Live):
    """A live batch with nothing in it that notes what is asked of it."""

    def __init__(self, did: list[str]) -> None:
        super().__init__(Folder(Path("batch")), Tally({"job": 1}), {}, resumed=False)
        self._did = did

    def drain(self, within_s: float) -> None:
        self._did.append(f"drain {within_s:g}")

    def cancel(self) -> None:
        self._did.append("cancel")


@pytest.mark.parametrize(
    ("heard", "did"),
    [
        pytest.param([(0.0, INT), (0.9, INT)], ["drain 25"], id="a key that bounces"),
        pytest.param([(0.0, INT), (1.0, INT)], ["drain 25", "cancel"], id="twice"),
        pytest.param([(0.0, INT), (0.6, INT), (1.2, INT)], ["drain 25", "cancel"], id="in a hurry"),
        pytest.param([(n * 0.3, INT) for n in range(8)], ["drain 25", "cancel"], id="in a great hurry"),
        pytest.param([(0.0, INT), (1.0, INT), (2.0, INT)], ["drain 25", "cancel", "leave 130"], id="three times"),
        pytest.param([(0.0, TERM), (5.0, TERM), (9.0, HUP)], ["drain 25"], id="never by others"),
        pytest.param([(0.0, TERM), (0.8, TERM), (1.0, INT)], ["drain 25", "cancel"], id="by a person, whoever began"),
    ],
)
def test_a_ctrl_c_counts_a_second_after_the_last_that_did(
    monkeypatch: pytest.MonkeyPatch, heard: list[tuple[float, signal.Signals]], did: list[str]
) -> None:
    """A key that bounces cancels nothing that is paid for; one that is hammered does not have to wait for it."""
    done: list[str] = []
    monkeypatch.setattr(os, "_exit", lambda code: done.append(f"leave {code}"))

    @in_virtual_time
    async def batch() -> None:
        signals = Signals(25.0, Display(io.StringIO()))
        signals.install(Heard(done))
        at_s = 0.0
        for next_s, number in heard:
            await asyncio.sleep(next_s - at_s)
            at_s = next_s
            signal.raise_signal(number)
            await asyncio.sleep(0.001)  # until it was heard
        signals.remove()

    batch()
    assert done == did
