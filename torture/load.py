"""
Interrupts under load: ``python -m torture.load``.

Two hundred jobs are in flight, the endpoint keeps RunPod's rate limits (100 cancels in 10 s), and then somebody presses
Ctrl-C, closes the terminal or the laptop, cancels from another shell, or only looks.
"""

import argparse
import os
import pty
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from runner import report
from runner.batch import Folder
from runner.ledger import Ledger
from torture.crowd import IN_FLIGHT, RUNS, Crowd, crowd
from torture.processes import PATIENCE_S, Stuck, environment, processes_with, wait_until
from torture.scene import Account
from torture.told import Told

AT_ONCE = 3
"""So many cases at a time: most of each is waiting for the limits to let the next call through."""

SECOND_S = 1.05
"""A second Ctrl-C counts after a second."""

IN_15_S = 190
"""So many of those in flight can be cancelled in the 15 s that a person is kept waiting: two windows of 95."""

KEPT_S = 3.0
"""How long the endpoint keeps results from a laptop that sleeps; RunPod: 30 minutes, and 40 are slept."""

SLEPT_S = 15.0
"""How long the laptop sleeps: past retention, and past the grace of a 404."""

Play = Callable[[], Account]


# Cancelling


def ctrl_c_twice(*, then_cancel: bool) -> Account:
    """
    Ctrl-C twice cancels what is in flight, as fast as the limits let it, for 15 s at most. What is left then goes on,
    and is told: ``runner cancel`` ends it, a resume follows it.
    """
    with crowd() as at:
        process = at.start(at.words("--drain", "60s"))
        at.wait_crowded(process)
        process.send_signal(signal.SIGINT)
        at.wait_said(process, "starting nothing more")
        time.sleep(SECOND_S)
        process.send_signal(signal.SIGINT)
        ran = at.finish(process)
        at.blame_if(ran.code != 130, f"it ended with {ran}")
        health = at.health["batch"]
        cancelled = health["cancelled"]
        at.blame_if(not IN_15_S <= cancelled <= IN_FLIGHT, f"{cancelled} jobs were cancelled in 15 s")
        at.blame_if(cancelled + at.known() != IN_FLIGHT, f"{cancelled} cancelled, {at.known()} in flight")
        at.check(may_end=["cancelled"], pending=RUNS - cancelled)
        at.account.runs = 0
        if then_cancel:
            ran = at.command(["cancel", "crowd"])
            at.blame_if(ran.code, f"cancel ended with {ran}")
            _all_cancelled(at, left=0)
            # The second process does not know when the first one sent its cancels, and is told to slow down.
            at.check(may_end=["cancelled", None], refused=["cancel"])
        else:
            _goes_on(at, code=1, may_end=["cancelled"])
        return at.account


def cancelled_from_another_shell() -> Account:
    """``runner cancel`` while a process runs the batch: it ends it, and whoever asked is told."""
    with crowd() as at:
        process = at.start(at.words())
        at.wait_crowded(process)
        asked = at.command(["cancel", "crowd"])
        ran = at.finish(process)
        at.blame_if((ran.code, asked.code) != (1, 0), f"it ended with {ran}, and cancel with {asked}")
        _all_cancelled(at, left=0)
        at.check(may_end=["cancelled", None])
        return at.account


def cancelled_without_a_process() -> Account:
    """``runner cancel`` of a batch whose process was killed: it does it itself."""
    with crowd() as at:
        process = at.start(at.words())
        at.wait_crowded(process)
        process.kill()
        at.finish(process)
        at.account.kills += 1
        asked = at.command(["cancel", "crowd"])
        at.blame_if(asked.code, f"cancel ended with {asked}")
        _all_cancelled(at, left=0)
        at.check(may_end=["cancelled", None])
        return at.account


def _all_cancelled(at: Crowd, *, left: int) -> None:
    """Every job that was in flight is over at the endpoint, each asked for once; nothing is paid for any longer."""
    truth = at.truth
    running = [one for ids in truth.accepted.values() for one in ids if one not in truth.ended]
    at.blame_if(running, f"{len(running)} jobs go on at the endpoint")
    at.blame_if(at.known(), f"{at.known()} jobs are still in flight, says the ledger")
    done = [one["job_id"] for one in at.asked("cancel") if one["status"] == 200]
    at.blame_if(len(done) != IN_FLIGHT or len(set(done)) != IN_FLIGHT, f"{len(done)} cancels for {IN_FLIGHT} jobs")
    health = at.health["batch"]
    at.blame_if(
        (health["cancelled"], health["pending"]) != (IN_FLIGHT, left), f"the report does not tell the truth: {health}"
    )


def _goes_on(at: Crowd, *, code: int, may_end: Sequence[str | None] = ()) -> None:
    """A resume finishes the batch."""
    at.go()
    ran = at.command(at.words("--resume"))
    at.blame_if(ran.code != code, f"the resume ended with {ran}, not {code}")
    at.check(may_end=may_end)


# Nobody listens any more


def signalled(number: signal.Signals) -> Account:
    """SIGHUP and SIGTERM never cancel: what is in flight is left to a resume, which follows it."""
    with crowd() as at:
        process = at.start(at.words("--drain", "1s"))
        at.wait_crowded(process)
        process.send_signal(number)
        ran = at.finish(process)
        at.blame_if(ran.code != 143, f"it ended with {ran}")
        _all_left(at)
        _goes_on(at, code=0)
        return at.account


AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "runner", *sys.argv[1:]])
"""


def terminal_gone() -> Account:
    """The window is closed: the kernel says SIGHUP, and every write fails from then on."""
    with crowd() as at:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, *map(str, at.words("--drain", "1s"))],
            cwd=at.folder,
            env=environment({"TERM": "xterm"} | at.mark),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        reader = threading.Thread(target=_read_until_closed, args=(ours,), daemon=True)
        reader.start()
        try:
            wait_until(lambda: at.known() >= IN_FLIGHT, f"{IN_FLIGHT} jobs in flight", every_s=0.1)
            os.close(ours)
            code = process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        at.blame_if(code != 143, f"it ended with {code}")
        _all_left(at)
        _goes_on(at, code=0)
        return at.account


def _read_until_closed(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return


def nobody_reads() -> Account:
    """stdin is closed, and whoever read what it says is gone, as in a pipe that broke: the batch goes on to its end."""
    with crowd() as at:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *map(str, at.words("-v"))],
            cwd=at.folder,
            env=environment(at.mark),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.close()
            wait_until(lambda: at.known() >= IN_FLIGHT, f"{IN_FLIGHT} jobs in flight", every_s=0.1)
            process.stdout.close()
            process.stderr.close()
            at.go()
            code = process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        at.blame_if(code, f"it ended with {code}")
        at.check()
        return at.account


def _all_left(at: Crowd) -> None:
    truth = at.truth
    at.blame_if(at.asked("cancel") or truth.ended, f"cancelled unasked: {len(truth.ended)} jobs")
    at.blame_if(at.known() != IN_FLIGHT, f"the ledger knows {at.known()} of {IN_FLIGHT} jobs in flight")
    pending = at.health["batch"]["pending"]
    at.blame_if(pending != RUNS, f"{pending} of {RUNS} runs are pending")


def asleep() -> Account:
    """The laptop sleeps for longer than results are kept: what ended meanwhile is called lost."""
    with crowd(retention_s=KEPT_S) as at:
        process = at.start(at.words())
        at.wait_crowded(process)
        process.send_signal(signal.SIGSTOP)
        at.go()
        wait_until(lambda: len(at.truth.ended) >= IN_FLIGHT, "the jobs to end", every_s=0.1)
        time.sleep(SLEPT_S)
        process.send_signal(signal.SIGCONT)
        ran = at.finish(process)
        outcomes = at.outcomes()
        at.blame_if(ran.code != 1, f"it ended with {ran}")
        # Those that were held by the server when it was stopped have their answers in their sockets.
        at.blame_if(not outcomes["lost"], f"nothing was lost to retention: {dict(outcomes)}")
        lost = [line["error"]["message"] for line in at.settled() if line["outcome"] == "lost"]
        odd = [text for text in lost if "RunPod no longer knows job" not in text]
        at.blame_if(odd, f"what is lost is not called that: {odd[:3]}")
        at.check(may_end=["lost"])
        return at.account


# Looking


LOOKERS = 4


def looked_at(total: int = 600) -> Account:
    """Many look at a live batch in a loop: each sees numbers that add up, nobody meets a lock, and it is not slowed."""
    alone = _played(total, lookers=0)
    crowded = _played(total, lookers=LOOKERS)
    account = crowded[0]
    account.add(Account(problems=alone[0].problems))
    if crowded[1] > 1.5 * alone[1] + 0.5:
        account.problems.append(f"with readers it took {crowded[1]:.2f} CPU s, and {alone[1]:.2f} without")
    return account


def _played(total: int, *, lookers: int) -> tuple[Account, float]:
    """Play a batch under the eyes of *lookers*; the CPU seconds that it took."""
    with crowd(total=total, in_flight=20) as at:
        at.go()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = at.start(at.words())
        with _looking(at, process, lookers) as looks:
            process.wait(PATIENCE_S)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = at.finish(process)
        at.blame_if(ran.code, f"it ended with {ran}")
        at.blame_if(lookers and looks.count < 10 * lookers, f"only {looks.count} looks")
        at.account.problems += looks.wrong[:5]
        at.check()
        at.account.tried = max(1, looks.count)
        return at.account, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Looks:
    """What readers of a live ledger saw."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: list[str] = []
        self.is_over = False

    def look(self, folder: Folder, total: int) -> None:
        """As ``runner status`` does, again and again."""
        last = 0
        while not self.is_over:
            try:
                with Ledger.read_only(folder.ledger) as ledger:
                    batch = report.fold(ledger, report.told(ledger, folder))["batch"]
            except Exception as error:  # noqa: BLE001 - whatever it is, a reader must not meet it
                self.wrong.append(f"a reader met {type(error).__name__}: {error}")
                return
            states = sum(batch[one] for one in ("succeeded", "failed", "cancelled", "skipped", "pending"))
            if (batch["runs"], states) != (total, total) or batch["succeeded"] < last:
                self.wrong.append(f"a reader saw {batch} after {last} had succeeded")
            last = batch["succeeded"]
            self.count += 1
            time.sleep(0.01)


@contextmanager
def _looking(at: Crowd, process: "subprocess.Popen[str]", lookers: int) -> Iterator[Looks]:
    looks = Looks()
    wait_until(lambda: process.poll() is not None or at.batch.ledger.exists(), "the ledger")
    with ThreadPoolExecutor(max(1, lookers)) as pool:
        futures = [pool.submit(looks.look, at.batch, at.total) for _ in range(lookers)]
        try:
            yield looks
        finally:
            looks.is_over = True
    for future in futures:
        future.result()


CASES: Mapping[str, tuple[str, Play]] = {
    "Ctrl-C twice, then resume": ("SIGINT twice, 200 jobs in flight", lambda: ctrl_c_twice(then_cancel=False)),
    "Ctrl-C twice, then cancel": ("SIGINT twice, 200 jobs in flight", lambda: ctrl_c_twice(then_cancel=True)),
    "cancel from another shell": ("runner cancel from another shell, 200 jobs in flight", cancelled_from_another_shell),
    "cancel after a kill": ("runner cancel after a SIGKILL, 200 jobs in flight", cancelled_without_a_process),
    "SIGHUP": ("SIGHUP, 200 jobs in flight", lambda: signalled(signal.SIGHUP)),
    "SIGTERM": ("SIGTERM, 200 jobs in flight", lambda: signalled(signal.SIGTERM)),
    "terminal gone": ("terminal gone, 200 jobs in flight", terminal_gone),
    "nobody reads": ("stdin closed and readers gone, 200 jobs in flight", nobody_reads),
    "asleep": ("asleep past retention, 200 jobs in flight", asleep),
    "looked at": ("runner status in a loop while a batch runs", looked_at),
}
"""The row that each case counts in, and what it does."""


def play(name: str) -> Account:
    """Play the case *name*; what came of it."""
    try:
        found = CASES[name][1]()
    except (Stuck, OSError, AssertionError) as error:
        found = Account(cases=1, tried=1, problems=[f"{type(error).__name__}: {error}"])
    found.problems = [f"[{name}] {one}\n  again: python -m torture.load --case {name!r}" for one in found.problems]
    return found


def main() -> int:
    """Play the cases of the command line; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m torture.load", description=__doc__)
    parser.add_argument("--case", choices=CASES, action="append", help="this one only; can be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")
    asked = parser.parse_args()
    names = asked.case or list(CASES)
    told, began = Told("load", "process"), time.monotonic()
    # By itself: what it costs is measured by the processes of this one that have ended.
    by_themselves = [name for name in names if name == "looked at"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [*pool.map(play, [name for name in names if name not in by_themselves]), *map(play, by_themselves)]
    for name, account in zip([*(one for one in names if one not in by_themselves), *by_themselves], found, strict=True):
        told.add(CASES[name][0], account)
        print(*account.problems[:5], sep="\n", end="\n" if account.problems else "")
    seconds = time.monotonic() - began
    left = processes_with("torture-crowd-")
    if left:
        told.add("processes left", Account(problems=[f"processes are left: {left}"]))
    print(*told.lines(), f"{len(told.problems)} problems in {seconds:.0f} s", sep="\n")
    if asked.json is not None:
        told.write(asked.json, seed=0, seconds=seconds)
    return 1 if told.problems else 0


if __name__ == "__main__":
    sys.exit(main())
