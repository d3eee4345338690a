"""
A disk that fails under real processes, and comes back: ``python -m torture.disks``.

A preloaded library (`disk.c`) lets one call on one file of a batch fail, once or from then on. Whoever runs the batch
has to stop and say which file and why; then the disk is well again, the batch is gone on with, and held against what
the endpoint says. Every case is a function of the seed and its own name.
"""

import argparse
import errno
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from runner.clock import iso
from torture import shim
from torture.processes import Ran, Served, processes_with, wait_until
from torture.scene import Account, Scene, lines
from torture.shim import Fault, Strike
from torture.stand import Stand, served_for_all
from torture.told import Told

AT_ONCE = 2
"""So many cases at a time: as many as a small machine has cores."""

SHOWN = 3
"""So many problems of a case are told; they are often the same."""

WIDTH = 2
"""So many runs of a job are in flight at once."""

FULL, BROKEN, READ_ONLY = errno.ENOSPC, errno.EIO, errno.EROFS

REASONS = {
    FULL: ("no space left on device", "database or disk is full", "disk i/o error", "unable to open database file"),
    BROKEN: ("input/output error", "disk i/o error", "unable to open database file"),
    READ_ONLY: ("read-only file system", "readonly database", "disk i/o error", "unable to open database file"),
}
"""How each trouble may be said: by the system, or by SQLite."""

QUIET = ("log.jsonl", ".lock", ".cancel", "-shm")
"""Files that a batch may do without: what is in them is also elsewhere, or is for people."""


_FOLDER = re.compile(r"Z-[0-9a-f]{4}$")


@dataclass(frozen=True)
class Spot:
    """
    A file of a batch, as a pattern, and a call on it that fails.

    *leg* is the process that meets it: the ``first``, one that goes on after a kill (``resume``), or one that tries
    again what failed (``retry``). *nths* are the calls at which it begins; all but the first may come too late.
    """

    file: str
    needle: str
    operation: str
    codes: tuple[int, ...]
    nths: tuple[int, ...] = (1,)
    leg: str = "first"


SPOTS = (
    # A new batch
    Spot("the folder of all batches", "*/batches/scene", "mkdir", (FULL, READ_ONLY)),
    Spot(".lock", "*/.lock", "create", (FULL, READ_ONLY)),
    Spot(".lock", "*/.lock", "write", (FULL, BROKEN)),
    Spot(".lock", "*/.lock", "truncate", (BROKEN, READ_ONLY)),
    Spot("the batch's folder", "*/scene/2*Z-????", "mkdir", (FULL, READ_ONLY)),
    Spot("the batch's folder", "*/scene", "sync", (BROKEN,), (1,)),
    Spot("the batch's folder", "*/scene/2*Z-????", "sync", (BROKEN, FULL), (1, 2, 3, 4)),
    Spot("manifest.json", "*/.manifest.json.tmp", "create", (FULL, READ_ONLY)),
    Spot("manifest.json", "*/.manifest.json.tmp", "write", (FULL, BROKEN)),
    Spot("manifest.json", "*/.manifest.json.tmp", "sync", (BROKEN, FULL)),
    Spot("manifest.json", "*/manifest.json", "rename", (BROKEN, READ_ONLY)),
    Spot("a new ledger", "*/.ledger.sqlite.tmp", "create", (FULL, READ_ONLY)),
    Spot("a new ledger", "*/.ledger.sqlite.tmp", "write", (FULL, BROKEN), (1, 4)),
    Spot("a new ledger", "*/.ledger.sqlite.tmp", "sync", (BROKEN,), (1, 2)),
    Spot("a new ledger", "*/.ledger.sqlite.tmp-*", "write", (FULL, BROKEN), (1, 3)),
    Spot("a new ledger", "*/ledger.sqlite", "rename", (BROKEN, READ_ONLY, FULL)),
    Spot("latest", "*/.latest.*", "create", (FULL, READ_ONLY)),
    Spot("latest", "*/latest", "rename", (BROKEN, READ_ONLY)),
    # While it runs
    Spot("log.jsonl", "*/log.jsonl", "create", (FULL, READ_ONLY)),
    Spot("log.jsonl", "*/log.jsonl", "write", (FULL, BROKEN), (1, 9)),
    Spot("the ledger's WAL", "*/ledger.sqlite-wal", "create", (FULL, READ_ONLY)),
    Spot("the ledger's WAL", "*/ledger.sqlite-wal", "write", (FULL, BROKEN), (1, 9, 60, 200)),
    Spot("the ledger's WAL", "*/ledger.sqlite-wal", "sync", (BROKEN, FULL), (1, 3, 9, 25)),
    Spot("the ledger's index of the WAL", "*/ledger.sqlite-shm", "create", (FULL, READ_ONLY)),
    Spot("the ledger's index of the WAL", "*/ledger.sqlite-shm", "write", (FULL, BROKEN)),
    Spot("the ledger's index of the WAL", "*/ledger.sqlite-shm", "truncate", (FULL, BROKEN)),
    Spot("results.jsonl", "*/results.jsonl", "create", (FULL, READ_ONLY)),
    Spot("results.jsonl", "*/results.jsonl", "write", (FULL, BROKEN), (1, 5, 11)),
    Spot("results.jsonl", "*/results.jsonl", "sync", (BROKEN, FULL), (1, 3, 7)),
    Spot("artifacts", "*/artifacts", "mkdir", (FULL, READ_ONLY)),
    Spot("artifacts", "*/artifacts/*", "mkdir", (FULL, READ_ONLY)),
    Spot("artifacts", "*.part", "create", (FULL, READ_ONLY), (1, 6)),
    Spot("artifacts", "*.part", "write", (FULL, BROKEN), (1, 6)),
    Spot("artifacts", "*.part", "sync", (BROKEN, FULL), (1, 6)),
    Spot("artifacts", "*.part", "unlink", (READ_ONLY, BROKEN)),
    Spot("artifacts", "*/artifacts/*.txt", "rename", (BROKEN, READ_ONLY, FULL), (1, 5)),
    Spot("artifacts", "*/artifacts/queued", "sync", (BROKEN,), (1, 4)),
    Spot("streams", "*/streams", "mkdir", (FULL, READ_ONLY)),
    Spot("streams", "*/streams/*.jsonl", "create", (FULL, READ_ONLY), (1, 3)),
    Spot("streams", "*/streams/*.jsonl", "write", (FULL, BROKEN), (1, 4)),
    Spot("streams", "*/streams/*.jsonl", "sync", (BROKEN,), (1, 3)),
    Spot("streams", "*/streams", "sync", (BROKEN,)),
    Spot("every file", "*/scene/*", "any", (BROKEN, READ_ONLY), (1, 8, 20, 50, 120, 250)),
    Spot("every file", "*/scene/*", "write", (FULL,), (1, 8, 20, 50, 120, 250)),
    Spot("every file", "*/scene/*", "sync", (BROKEN,), (2, 12, 30)),
    # Its end
    Spot("health.json", "*/.health.json.tmp", "create", (FULL, READ_ONLY)),
    Spot("health.json", "*/.health.json.tmp", "write", (FULL, BROKEN)),
    Spot("health.json", "*/.health.json.tmp", "sync", (BROKEN,)),
    Spot("health.json", "*/health.json", "rename", (BROKEN, READ_ONLY)),
    Spot("report.html", "*/.report.html.tmp", "create", (FULL, READ_ONLY)),
    Spot("report.html", "*/.report.html.tmp", "write", (FULL, BROKEN)),
    Spot("report.html", "*/.report.html.tmp", "sync", (BROKEN,)),
    Spot("report.html", "*/report.html", "rename", (BROKEN, READ_ONLY)),
    Spot("ledger.sqlite", "*/ledger.sqlite", "write", (FULL, BROKEN), (1, 3)),
    Spot("ledger.sqlite", "*/ledger.sqlite", "sync", (BROKEN,)),
    Spot("ledger.sqlite", "*/ledger.sqlite-wal", "unlink", (BROKEN, READ_ONLY)),
    Spot(".cancel", "*/.cancel", "unlink", (READ_ONLY, BROKEN)),
    # A batch that is gone on with
    Spot(".lock", "*/.lock", "write", (FULL,), leg="resume"),
    Spot(".cancel", "*/.cancel", "unlink", (READ_ONLY,), leg="resume"),
    Spot("log.jsonl", "*/log.jsonl", "write", (BROKEN,), leg="resume"),
    Spot("results.jsonl", "*/results.jsonl", "sync", (BROKEN,), (1, 2), leg="resume"),
    Spot("results.jsonl", "*/results.jsonl", "truncate", (BROKEN, READ_ONLY), leg="resume"),
    Spot("results.jsonl", "*/results.jsonl", "write", (FULL,), (1, 4), leg="resume"),
    Spot("the ledger's WAL", "*/ledger.sqlite-wal", "write", (FULL, BROKEN), (1, 20), leg="resume"),
    Spot("the ledger's WAL", "*/ledger.sqlite-wal", "sync", (BROKEN,), (1, 4), leg="resume"),
    Spot("artifacts", "*.part", "create", (FULL,), (1, 4), leg="resume"),
    Spot("every file", "*/scene/*", "any", (BROKEN, READ_ONLY), (1, 8, 30), leg="resume"),
    Spot("every file", "*/scene/*", "write", (FULL,), (1, 8, 30), leg="resume"),
    Spot("health.json", "*/.health.json.tmp", "write", (FULL,), leg="resume"),
    # One of which the failed runs are tried again
    Spot("results.jsonl", "*/.results.jsonl.new", "create", (FULL, READ_ONLY), leg="retry"),
    Spot("results.jsonl", "*/.results.jsonl.new", "write", (FULL, BROKEN), leg="retry"),
    Spot("results.jsonl", "*/.results.jsonl.new", "sync", (BROKEN,), leg="retry"),
    Spot("results.jsonl", "*/results.jsonl", "rename", (BROKEN, READ_ONLY), leg="retry"),
    Spot("the ledger's WAL", "*/ledger.sqlite-wal", "write", (FULL, BROKEN), (1, 5), leg="retry"),
    Spot("every file", "*/scene/*", "any", (BROKEN, READ_ONLY), (6, 14), leg="retry"),
)


@dataclass(frozen=True)
class Case:
    """One case: its name, by which it can be played again, the row of the table that it counts in, and what it does."""

    name: str
    row: str
    play: Callable[[Stand], None]


def cases() -> list[Case]:
    """All of them, in their order."""
    from torture import damage

    found = [_at(spot, code, nth) for spot in SPOTS for code in spot.codes for nth in spot.nths]
    found += [_slow(name, needle, how) for name, needle in SLOW.items() for how in ("", ", SIGTERM")]
    return found + [Case(name, row, play) for name, row, play in damage.cases()]


def _at(spot: Spot, code: int, nth: int) -> Case:
    symbol = errno.errorcode[code]
    name = f"{symbol} on {spot.operation} of {spot.file} ({spot.needle}) #{nth}, {spot.leg}"
    operation = "anything" if spot.operation == "any" else spot.operation

    def play(stand: Stand) -> None:
        fault = Fault(spot.operation, spot.needle, code, nth, stand.chance.choice((0, 1)))
        LEGS[spot.leg](stand, fault)
        if nth == 1 and not stand.account.tried:
            stand.account.problems.append(f"nothing came to {fault}")

    return Case(name, f"{symbol} on {operation}", play)


# Legs


def first(stand: Stand, fault: Fault) -> None:
    """The disk fails under the first process."""
    on(stand, struck(stand, fault, stand.words()))


def resume(stand: Stand, fault: Fault) -> None:
    """The first is killed in the middle, and the disk fails under the next."""
    stand.kill_at("line half written", stand.chance.randint(1, 3), stand.words())
    on(stand, struck(stand, fault, stand.words("--resume")))


def retry(stand: Stand, fault: Fault) -> None:
    """Answers are lost, a person tries these runs again, and the disk fails under that."""
    stand.kill_at("accepted, unanswered", stand.chance.randint(2, 5), stand.words())
    stand.command(stand.words("--resume"))
    again = ["resume", stand.scene.name, "--local", stand.served.url, "--retry-failed"]
    struck(stand, fault, again)
    stand.command(again)
    stand.audit(stand.command(again), may_resend=True)


LEGS: dict[str, Callable[[Stand, Fault], None]] = {"first": first, "resume": resume, "retry": retry}


def struck(stand: Stand, fault: Fault, words: Sequence[str | Path]) -> Ran:
    """Run *words* over a disk with *fault*, and judge how that ended."""
    marks = stand.scene.folder / f"struck-{time.monotonic_ns()}"
    stand.env = shim.variables(stand.scene.folder / "batches", fault=fault, struck=marks)
    ran = stand.command(words)
    stand.env = {}
    found = shim.strikes(marks)
    if found:
        stand.account.tried += 1
        problems = judge(stand, fault, found, ran)
        stand.account.problems += [f"{fault}: {one}" for one in problems]
    return ran


def judge(stand: Stand, fault: Fault, found: Sequence[Strike], ran: Ran) -> list[str]:
    """What is wrong with how a process took it that its disk failed."""
    said = ran.err.lower()
    grave = [one for one in found if not one.path.endswith(QUIET)]
    if not grave and "error:" not in said:
        return [] if ran.code in (0, 1) else [f"it ended with {ran.code}: {ran.err[-1000:]}"]
    begin = (grave or found)[0]
    if "error:" not in said and all(one.operation == "unlink" or _is_tidying(one) for one in grave):
        return []  # what only tidies up may fail, if all is whole afterwards: the audit will say
    if "error:" not in said and all(one.operation == "sync" and _FOLDER.search(one.path) for one in grave):
        return []  # SQLite doesn't heed what a sync of the folder says, when it has made its WAL
    if "error:" not in said and all(one.operation == "mkdir" and Path(one.path).is_dir() for one in grave):
        return []  # another thread has made the folder meanwhile, which is all that was wanted
    wrong = []
    if ran.code not in (1, 2) or "error:" not in said:
        wrong.append(f"it ended with {ran.code} after {begin.path}: {ran.err[-1000:]}")
    if not any(reason in said for reason in REASONS[fault.code]):
        wrong.append(f"it does not say why: {ran.err[-1000:]}")
    if not any(name in ran.err for one in found for name in _names(one.path)):
        wrong.append(f"it does not say which file, of {sorted({one.path for one in found})[:4]}: {ran.err[-1000:]}")
    told = lines(stand.served.log, stand.began)
    later = [one for one in told if one["event"] == "accepted" and one["at"] > iso(begin.at)]
    most = WIDTH * len(stand.scene.runs)
    if len(later) > most:
        wrong.append(f"{len(later)} jobs were sent after the disk failed, and {most} may be in flight")
    return wrong


def _is_tidying(strike: Strike) -> bool:
    """Whether the call only folds the WAL into the ledger, as its last user does; what is in the WAL is safe there."""
    return strike.path.endswith("/ledger.sqlite") and strike.operation in ("write", "sync")


def _names(path: str) -> list[str]:
    """What a message may call a file: aside it has another name, and SQLite's own files are the ledger."""
    name = path.rpartition("/")[2]
    if ".ledger.sqlite.tmp" in name or name.startswith("ledger.sqlite"):
        return ["ledger.sqlite"]
    if name.startswith(".latest."):
        return ["latest"]
    return [name, re.sub(r"^\.(.*)\.(tmp|new)$", r"\1", name)]


def on(stand: Stand, before: Ran) -> None:
    """The disk is well again: go on to the end with the batch of which a process ended as *before*."""
    by_name = ["resume", stand.scene.name, "--local", stand.served.url]
    is_over = before.code in (0, 1) and "error:" not in before.err  # a new one would begin by its job file
    is_named = bool(stand.scene.batches()) and (is_over or stand.chance.random() < 0.5)
    stand.audit(stand.command(by_name if is_named else stand.words("--resume")))
    if stand.chance.random() < 0.15:
        stand.check_over()


# A disk that is only slow

SLOW = {"the ledger's WAL": "*/ledger.sqlite-wal", "results.jsonl": "*/results.jsonl", "every file": "*/scene/*"}


def _slow(name: str, needle: str, how: str) -> Case:
    def play(stand: Stand) -> None:
        stand.account.tried += 1
        stand.env = shim.variables(stand.scene.folder / "batches", slow=(needle, stand.chance.choice((30, 100, 250))))
        process = stand.start(stand.words("--drain", "1s"))
        if how:
            wanted = stand.chance.randint(1, stand.scene.total)
            wait_until(lambda: process.poll() is not None or stand.events >= wanted, "so many events")
            process.send_signal(signal.SIGTERM)
        ran = stand.finish(process)
        stand.env = {}
        if how and ran.code == 143:
            ran = stand.command(stand.words("--resume"))
        stand.audit(ran)

    return Case(f"slow fsync of {name}{how}", "slow fsync", play)


# All of them


def play(case: Case, served: Served, seed: int) -> Account:
    """Play one case; what came of it."""
    chance = random.Random(f"{seed} {case.name}")
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=memory if os.access(memory, os.W_OK) else None))
    runs = {"queued": chance.randint(10, 14), "held": chance.randint(4, 6), "streamed": chance.randint(4, 6)}
    lost = "fail" if "retry" in case.name else chance.choice(("fail", "resubmit"))
    try:
        scene = Scene.make(folder / "case", runs=runs, lost=lost, ms=chance.choice((0, 4, 12)), width=WIDTH)
        stand = Stand(scene, served, chance)
        try:
            case.play(stand)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this case's problem
            stand.account.problems.append(f"{type(error).__name__}: {error}")
        again = f"python -m torture.disks --seed {seed} --case {case.name!r}"
        stand.account.problems = [f"{one}\n  again: {again}" for one in stand.account.problems]
        return stand.account
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play_all(chosen: Sequence[Case], seed: int, *, tell: Callable[[str], None] = print) -> Told:
    """Play the *chosen* cases, two at a time, each beside an endpoint that outlives its runners."""
    told = Told("disks", "disk")
    free: SimpleQueue[Served] = SimpleQueue()

    def one(case: Case) -> Account:
        served = free.get()
        try:
            return play(case, served, seed)
        finally:
            free.put(served)

    with served_for_all() as one_served, served_for_all() as another, ThreadPoolExecutor(AT_ONCE) as pool:
        free.put(one_served)
        free.put(another)
        for number, (case, found) in enumerate(zip(chosen, pool.map(one, chosen), strict=True), 1):
            told.add(case.row, found)
            for problem in found.problems[:SHOWN]:
                tell(f"[{case.name}] {problem}")
            if number % 25 == 0 or number == len(chosen):
                tell(f"  {number} of {len(chosen)} cases, {told.total.tried} faults, {len(told.problems)} problems")
    return told


def thinned(found: Sequence[Case], every: int, seed: int) -> list[Case]:
    """Every Nth of the cases of each row, and one of each at least; which ones, the *seed* says."""
    rows: dict[str, list[Case]] = {}
    for one in found:
        rows.setdefault(one.row, []).append(one)
    return [one for row in rows.values() for one in row[seed % min(every, len(row)) :: every]]


def main() -> int:
    """Play the cases of the command line; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m torture.disks", description=__doc__)
    parser.add_argument("--seed", type=int, help="the same seed plays the same cases; by default one of chance")
    parser.add_argument("--case", help="play the one of this name only")
    parser.add_argument("--only", metavar="TEXT", help="play those with this text in their names")
    parser.add_argument("--every", type=int, default=2, metavar="N", help="play every Nth of each row; default 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")
    parser.add_argument("--list", action="store_true", help="say their names")
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    chosen = [
        one
        for one in cases()
        if (asked.case is None or one.name == asked.case) and (asked.only is None or asked.only in one.name)
    ]
    chosen = thinned(chosen, 1 if asked.case or asked.list else asked.every, seed)
    if not chosen:
        sys.exit("there is no such case; --list says them all")
    if asked.list:
        print(*(one.name for one in chosen), sep="\n")
        return 0
    print(f"seed {seed}, {len(chosen)} cases")
    began = time.monotonic()
    told = play_all(chosen, seed, tell=lambda text: print(text, flush=True))
    seconds = time.monotonic() - began
    print(*told.lines(), f"{len(told.problems)} problems in {seconds:.0f} s", sep="\n")
    if asked.json is not None:
        told.write(asked.json, seed=seed, seconds=seconds)
    left = processes_with("torture-served-")
    return 1 if told.problems or left else 0


if __name__ == "__main__":
    sys.exit(main())
