"""
What else ends or disturbs a process of ours: signals, a second start, other shells, memory, sleep, and clocks.

    python -m torture.interrupts                    every case
    python -m torture.interrupts --case NAME ...    these again; the seed tells all else
"""

import json
import platform
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from torture.cases import FEW, SLOW_MS, Case
from torture.player import program
from torture.processes import Ran, Served, Stuck, wait_until
from torture.sigkills import check_cancelled
from torture.stand import Stand
from torture.weather import weather

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
HOW = "interrupts"

SHIFTED = ("-m", "torture.shifted")

LONG_MS = 1300
"""How long a handler takes, so that jobs are in flight after `SECOND_S`, too."""

SECOND_S = 1.05
"""A second Ctrl-C counts after a second."""


# When


def starts(stand: Stand, process: "subprocess.Popen[str]") -> None:
    """The lock is taken, and hardly anything else is there."""
    there = stand.scene.root / ".lock"
    wait_until(lambda: process.poll() is not None or there.exists(), "the lock", every_s=0.001)


def is_made(stand: Stand, process: "subprocess.Popen[str]") -> None:
    """The batch has a ledger, and maybe its first jobs."""
    wait_until(lambda: process.poll() is not None or stand.scene.batches(), "the ledger", every_s=0.001)


def is_half(stand: Stand, process: "subprocess.Popen[str]") -> None:
    """A third of the runs is settled, others are in flight."""
    stand.wait_settled(process, stand.scene.total // 3)


def has_sent_all(stand: Stand, process: "subprocess.Popen[str]") -> None:
    """The last runs are in flight."""
    wait_until(lambda: process.poll() is not None or len(stand.truth.accepted) >= stand.scene.total, "the last submit")


def is_over(stand: Stand, process: "subprocess.Popen[str]") -> None:
    """All runs are settled, and the report is being written."""
    stand.wait_settled(process, stand.scene.total)


PHASES: dict[str, Callable[[Stand, "subprocess.Popen[str]"], None]] = {
    "as it starts": starts,
    "before the first submit": is_made,
    "half way": is_half,
    "with the last runs in flight": has_sent_all,
    "as it ends": is_over,
}


# What


def once(stand: Stand, number: signal.Signals, phase: str) -> None:
    """One signal: what is in flight is followed or left, nothing is cancelled, and a resume finishes it."""
    process = stand.start(stand.words("--drain", stand.chance.choice(("50ms", "2s"))))
    PHASES[phase](stand, process)
    process.send_signal(number)
    _check_code(stand, stand.finish(process), number)
    _check_nothing_cancelled(stand)
    stand.end()


def twice(stand: Stand, number: signal.Signals, phase: str) -> None:
    """Two, more than a second apart: by Ctrl-C what is in flight is cancelled, by others it is not."""
    process = stand.start(stand.words("--drain", "60s" if number is INT else "1500ms"))
    PHASES[phase](stand, process)
    process.send_signal(number)
    time.sleep(SECOND_S)
    process.send_signal(number)
    _check_code(stand, stand.finish(process), number)
    if number is not INT:
        _check_nothing_cancelled(stand)
    # What would have been tried again, but was in flight when it was to end, is not.
    stand.end(code=None, may_end={"cancelled", "failed", "check_failed"} if number is INT else ())


def in_a_drain(stand: Stand) -> None:
    """Killed while it drains after a SIGTERM."""
    process = stand.start(stand.words("--drain", "60s"))
    is_half(stand, process)
    process.send_signal(TERM)
    stand.wait_said(process, "starting nothing more")
    stand.kill(process)
    _check_nothing_cancelled(stand)
    stand.end()


def _check_code(stand: Stand, ran: Ran, number: signal.Signals) -> None:
    """It says that it was interrupted, or it had come to its end: then nothing is left."""
    told = (130,) if number is INT else (143,)
    left = bool(stand.scene.batches()) and stand.unfinished
    if ran.code in told or (ran.code in (0, 1) and not left and stand.scene.batches()):
        return
    # It was not yet listening and had sent nothing, or it had listened to its end and said all that it had to say.
    if ran.code == -number and (not stand.truth.accepted or str(stand.scene.batch.path) in ran.out):
        return
    stand.account.problems.append(f"after {number.name} it ended with {ran}, {left} runs left")


def _check_nothing_cancelled(stand: Stand) -> None:
    asked = [one for one in stand.asked() if one["operation"] in ("cancel", "purge-queue")]
    if asked:
        stand.account.problems.append(f"{len(asked)} jobs were cancelled, and nobody had asked for it")


def cancelled(stand: Stand, phase: str) -> None:
    """``runner cancel`` from another shell, while jobs complete."""
    process = stand.start(stand.words())
    is_made(stand, process)
    PHASES[phase](stand, process)
    ran = stand.command(["cancel", stand.scene.name])
    ended = stand.finish(process)
    if ran.code or ended.code not in (0, 1):
        stand.account.problems.append(f"cancel came to {ran}, and the batch to {ended}")
    check_cancelled(stand)
    stand.check_over()


def looked_at(stand: Stand) -> None:
    """``status``, ``list`` and ``results`` from other shells, some killed, see whole numbers, and change nothing."""
    process = stand.start(stand.words())
    is_made(stand, process)
    while process.poll() is None:
        stand.account.tried += 1
        ran = stand.command(["status", stand.scene.name, "--format", "json"])
        totals = json.loads(ran.out)["batch"] if ran.code == 0 else {}
        parts = ("succeeded", "failed", "cancelled", "skipped", "pending")
        if ran.code or not totals["runs"] == stand.scene.total == sum(totals[part] for part in parts):
            stand.account.problems.append(f"status in the middle: {ran}")
        other = stand.start(stand.chance.choice((["list"], ["results", stand.scene.name])))
        time.sleep(stand.chance.uniform(0.0, 0.5))
        kills = stand.account.kills
        stand.kill(other)  # of one that only reads, so it does not count
        stand.account.kills = kills
    stand.audit(stand.finish(process))


# Two at once


def _check_refused(stand: Stand, ran: Ran, holders: Sequence["subprocess.Popen[str]"]) -> None:
    named = re.search(r"another batch of 'scene' is running: process (\d+) on (\S+), since", ran.err)
    is_right = named and named[2] == platform.node() and int(named[1]) in [one.pid for one in holders]
    silent = "its process has not said yet which it is" in ran.err
    if ran.code != 5 or not (is_right or silent):
        stand.account.problems.append(f"a second start came to {ran}, and {[one.pid for one in holders]} was running")


@contextmanager
def standing_still(stand: Stand) -> Iterator[None]:
    """The endpoint answers nobody while the block runs, so that no batch comes to its end."""
    assert isinstance(stand.served, Served)
    stand.served.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stand.served.process.send_signal(signal.SIGCONT)


def at_once(stand: Stand, count: int, after: str) -> None:
    """So many starts at the same moment: one runs, each of the others ends with 5 and says who holds the lock."""
    more: tuple[str, ...] = ()
    if after == "a kill":
        process = stand.start(stand.words())
        is_half(stand, process)
        stand.kill(process)
        more = ("--resume",)
    with standing_still(stand):
        started = [stand.start(stand.words(*more)) for _ in range(count)]
        with suppress(Stuck):  # then more than one of them runs, which is said below
            ended = f"{count - 1} of {count} to end"
            wait_until(lambda: sum(one.poll() is not None for one in started) >= count - 1, ended, patience_s=30)
    ran = {one.pid: stand.finish(one) for one in started}
    refused = [pid for pid, found in ran.items() if found.code == 5]
    holders = [one for one in started if one.pid not in refused]
    if len(holders) != 1:
        codes = [one.code for one in ran.values()]
        stand.account.problems.append(f"{len(holders)} of {count} starts at once ran: {codes}")
    for pid in refused:
        _check_refused(stand, ran[pid], holders)
    stand.account.tried += count
    stand.audit(ran[holders[0].pid])


def freed(stand: Stand, *, embedded: bool) -> None:
    """A second start is refused; the holder is killed, and the very next start goes on, whoever of it still lives."""
    first: list[str | Path] = ["run", stand.scene.job_file] if embedded else stand.words()
    process = stand.start(first)
    is_half(stand, process)
    process.send_signal(signal.SIGSTOP)  # so that it holds on, however slow the others are
    _check_refused(stand, stand.command(first), [process])
    _check_refused(stand, stand.command([*first, "--resume"]), [process])
    stand.kill(process)
    stand.account.kills, stand.account.tried = 0, 3
    ran = stand.command([*first, "--resume"])
    if ran.code == 5:
        stand.account.problems.append(f"the lock of a dead holder was not free: {ran}")
    stand.audit(ran, is_embedded=embedded)


def in_a_drain_start(stand: Stand) -> None:
    """A tick of cron while the batch of the last one drains."""
    process = stand.start(stand.words("--drain", "60s"))
    is_half(stand, process)
    with standing_still(stand):
        process.send_signal(TERM)
        stand.wait_said(process, "starting nothing more")
        for words in (stand.words("--resume"), stand.words()):
            _check_refused(stand, stand.command(words), [process])
    _check_code(stand, stand.finish(process), TERM)
    stand.end()


def unasked(stand: Stand) -> None:
    """A tick of cron without ``--resume`` after one that was killed: it is told so, and sends nothing."""
    process = stand.start(stand.words())
    is_half(stand, process)
    stand.kill(process)
    time.sleep(0.5)  # what it had sent is accepted by then
    before = stand.truth.accepted
    ran = stand.command(stand.words())
    if ran.code != 2 or "is unfinished" not in ran.err or stand.truth.accepted != before:
        stand.account.problems.append(f"a start beside an unfinished batch came to {ran}")
    stand.end()


# Memory, sleep, clocks


def out_of_memory(stand: Stand) -> None:
    """It gets no more memory from some moment on; however it ends, a resume goes on."""
    process = stand.start(stand.words())
    PHASES[stand.chance.choice(("before the first submit", "half way"))](stand, process)
    stand.is_broken_rightly = True
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    give_up = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.05)
    stand.kill(process)  # what can neither go on nor end is what the kernel's killer ends
    stand.account.kills, stand.account.tried = 0, 1
    stand.end()


def asleep(stand: Stand) -> None:
    """The machine sleeps for longer than results are kept: what ended meanwhile is called lost, never forgotten."""
    with weather(retention_s=3.0, sync_retention_s=3.0) as other:
        stand.beside(other)
        process = stand.start(stand.words())
        is_half(stand, process)
        process.send_signal(signal.SIGSTOP)
        time.sleep(12.0)  # past the grace of a 404, too
        process.send_signal(signal.SIGCONT)
        stand.audit(stand.finish(process), may_end={"lost"})


def shifted(stand: Stand, by: str) -> None:
    """The calendar steps while a batch runs, and it is killed and gone on with."""
    words = [by, str(stand.chance.randint(3, 30))]
    process = stand.start([*words, *stand.words()], main=SHIFTED)
    is_half(stand, process)
    stand.kill(process)
    stand.account.kills, stand.account.tried = 0, 2
    stand.audit(stand.command([*words, *stand.onwards()], main=SHIFTED))


def over_midnight(stand: Stand) -> None:
    """Killed, and gone on with nine hours later by the calendar: what the endpoint still has is taken."""
    process = stand.start(stand.words())
    is_half(stand, process)
    stand.kill(process)
    stand.account.kills, stand.account.tried = 0, 1
    stand.audit(stand.command(["32400", "0", *stand.onwards()], main=SHIFTED))


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for number in (INT, TERM, HUP):
        for phase in PHASES:
            how = partial(once, number=number, phase=phase)
            name = f"{number.name} {phase}"
            yield Case(name, f"{number.name} once, at each phase", "process", HOW, how, runs=FEW, ms=60)
    for number in (INT, TERM):
        for phase in PHASES:
            how = partial(twice, number=number, phase=phase)
            name = f"{number.name} twice {phase}"
            yield Case(name, f"{number.name} twice, at each phase", "process", HOW, how, runs=FEW, ms=LONG_MS)
    yield Case("SIGKILL in a drain", "SIGKILL while draining", "process", HOW, in_a_drain, runs=FEW, ms=SLOW_MS)
    for phase in ("before the first submit", "half way", "with the last runs in flight"):
        for ms in (20, SLOW_MS):
            how = partial(cancelled, phase=phase)
            fault = "runner cancel from another shell, racing completion"
            yield Case(f"runner cancel {phase}, {ms} ms", fault, "process", HOW, how, runs=FEW, ms=ms)
    yield Case(
        "looked at", "runner status, list, results in a live batch", "process", HOW, looked_at, ms=SLOW_MS, width=3
    )
    for again in (1, 2):
        yield Case(f"out of memory {again}", "out of memory", "process", HOW, out_of_memory, ms=30)
    yield Case("freed, served", "the lock's holder killed", "process", HOW, partial(freed, embedded=False), ms=100)
    yield Case("freed, embedded", "the lock's holder killed", "process", HOW, partial(freed, embedded=True), ms=100)
    for count in (2, 3):
        for after in ("nothing", "a kill"):
            how = partial(at_once, count=count, after=after)
            yield Case(f"{count} starts after {after}", "two starts at once, and three", "scheduling", HOW, how, ms=100)
    yield Case("tick in a drain", "a tick while draining", "scheduling", HOW, in_a_drain_start, runs=FEW, ms=SLOW_MS)
    yield Case("tick after a kill", "a missed tick: refused beside an unfinished batch", "scheduling", HOW, unasked)
    yield Case("asleep", "asleep past retention, results expired", "process", HOW, asleep, runs=FEW, ms=SLOW_MS)
    for by in ("-3600", "3600", "-7200"):
        fault = f"calendar stepped {'back' if by.startswith('-') else 'forward'}"
        yield Case(f"calendar {by} s", fault, "process", HOW, partial(shifted, by=by))
    yield Case("over midnight", "off for nine hours, over midnight", "scheduling", HOW, over_midnight)


if __name__ == "__main__":
    sys.exit(program("interrupts", __doc__, lambda _moments, _seed: list(cases())))
