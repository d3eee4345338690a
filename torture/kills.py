"""
Real kills: processes of the command against a served endpoint, ended by SIGKILL and gone on with.

Every case is a function of the seed and its own name, so that one that failed can be played again by itself.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from runner.ledger import Ledger
from torture.killed import BEGIN, CANCEL, FINISH, RESUME, SETTLE, SUBMIT, SUPERSEDE
from torture.processes import Served, Stuck, processes_with, serving, wait_until
from torture.scene import Account, Broken, Scene, lines
from torture.stand import Stand, served_for_all

AT_ONCE = 2
"""So many cases at a time: as many as a small machine has cores."""

SHOWN = 4
"""So many problems of a case are told; they are often the same."""

Play = Callable[[Stand], None]

MESS = ("accepted, unanswered", "line synced, row not committed", "claim committed", "chunks appended")
"""Steps after which a resume has something to mend."""


def at_step(step: str, nth: int, *, must: bool) -> Play:
    """Killed the nth time that a batch comes to *step*; *must* says that it comes there so often."""

    def play(stand: Stand) -> None:
        if not stand.kill_at(step, nth, stand.words()) and must:
            stand.account.problems.append(f"the step '{step}' was not reached {nth} times")
        stand.end()

    return play


def at_the_end(step: str) -> Play:
    """Killed while a batch ends; it is gone on with by its name, which sends nothing."""

    def play(stand: Stand) -> None:
        if not stand.kill_at(step, 1, stand.words()):
            stand.account.problems.append(f"the step '{step}' was not reached")
        stand.audit(stand.command(["resume", stand.scene.name, "--local", stand.served.url]))

    return play


def in_resume(step: str) -> Play:
    """Killed in the middle, and the resume is killed at *step*."""

    def play(stand: Stand) -> None:
        stand.kill_at("line synced, row not committed", 6, stand.words())
        if not stand.kill_at(step, 1, stand.words("--resume")):
            stand.account.problems.append(f"the step '{step}' was not reached in a resume")
        stand.end()

    return play


def in_another_try(step: str) -> Play:
    """A batch with answers lost is tried again by a person, who is killed at *step*."""

    def play(stand: Stand) -> None:
        stand.kill_at("accepted, unanswered", 5, stand.words())
        stand.command(stand.words("--resume"))
        again = ["resume", stand.scene.name, "--local", stand.served.url, "--retry-failed"]
        if not stand.kill_at(step, 1, again):
            stand.account.problems.append(f"the step '{step}' was not reached in --retry-failed")
        stand.command(again)
        stand.audit(stand.command(again), may_resend=True)

    return play


def in_cancel(step: str) -> Play:
    """Killed in the middle; who cancels it then is killed at *step*, and cancels again."""

    def play(stand: Stand) -> None:
        process = stand.start(stand.words())
        wait_until(lambda: len(stand.truth.ended) >= 2, "the first jobs to end, so that others' ids are known")
        stand.kill(process)
        cancel = ["cancel", stand.scene.name]
        if not stand.kill_at(step, 1, cancel):
            stand.account.problems.append(f"the step '{step}' was not reached in a cancel")
        ran = stand.command(cancel)
        stand.account.cases += 1
        stand.account.runs += stand.scene.total
        settled = len(lines(stand.scene.batch.results))
        left = known_jobs(stand.scene) - set(stand.truth.ended)
        if ran.code or settled != stand.scene.total or left:
            stand.account.problems.append(f"cancel came to {ran}, {settled} runs settled, {left} go on at the endpoint")

    return play


def known_jobs(scene: Scene) -> set[str]:
    """The ids of all jobs that the newest batch's ledger knows."""
    with Ledger.read_only(scene.batch.ledger) as ledger:
        keys = [line["key"] for line in lines(scene.batch.results)]
        return {one.job_id for key in keys for one in ledger.attempts(key) if one.job_id is not None}


def worker(stand: Stand) -> None:
    """Workers of the endpoint and their launchers are killed while a batch runs: their runs are, or end as crashed."""
    process = stand.start(stand.words())
    for number in range(4):
        wanted = 10 + 12 * number
        wait_until(lambda w=wanted: process.poll() is not None or stand.events >= w, "so many events", every_s=0.001)
        what = "runner.local.launcher" if number % 2 else "runner.local.worker"
        victim = stand.chance.choice(processes_with(stand.served.mark, what) or [0])
        if victim:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            stand.account.kills += 1
    ran = stand.finish(process)
    stand.audit(ran, may_end={"completed", "crashed"})


def embedded(stand: Stand) -> None:
    """The endpoint is in the process that is killed: everything of it ends with it, and its jobs start again."""
    words = ["run", stand.scene.job_file]
    for resume in ([], ["--resume"]):
        process = stand.start([*words, *resume])
        wanted = stand.chance.randint(1, stand.scene.total // 2) + len(stand.settled())
        wait_until(partial(_has_settled, process, stand, wanted), "runs to settle")
        stand.kill(process)
        wait_until(lambda: not processes_with(stand.scene.mark), "every process of the batch to end")
    stand.audit(stand.command([*words, "--resume"]), is_embedded=True)


def server(stand: Stand) -> None:
    """The endpoint itself is killed, and one that knows nothing of its jobs takes its place: they are `lost`."""
    folder = stand.scene.folder
    with serving(stand.scene.job_file, env={"TORTURE_MARK": stand.scene.mark}) as served:
        stand.served, stand.began = served, 0
        process = stand.start(stand.words())
        wanted = stand.chance.randint(10, stand.scene.total)
        wait_until(lambda: stand.events >= wanted, "so many events", every_s=0.001)
        served.process.kill()
        stand.account.kills += 1
    port = int(served.url.split(":")[2].split("/")[0])
    wait_until(lambda: not processes_with(stand.scene.mark, "runner.local"), "the workers to end with their endpoint")
    mark = {"TORTURE_MARK": stand.scene.mark}
    with serving(stand.scene.job_file, env=mark, port=port, log=folder / "accepted.jsonl"):
        ran = stand.finish(process)
    stand.audit(ran, may_end={"completed", "lost", "answer_lost"})


def at_random(stand: Stand) -> None:
    """Killed when so much has happened at the endpoint, up to three times, then gone on with to the end."""
    chance, words = stand.chance, stand.words()
    for number in range(chance.choice((1, 1, 1, 2, 2, 3))):
        process = stand.start(words if number == 0 else stand.words("--resume"))
        if chance.random() < 0.15:
            time.sleep(chance.uniform(0.0, 1.0))  # while it starts
        else:
            most = 2 * stand.scene.total + 12
            wanted = stand.events + 1 + int(chance.random() * max(1, most - stand.events))
            there = partial(_is_there, process, stand, wanted)
            wait_until(there, "the moment", every_s=0.001)
            time.sleep(chance.uniform(0.0, 0.03))
        stand.kill(process)
    stand.end()
    if chance.random() < 0.2:
        stand.check_over()


def named() -> dict[str, Play]:
    """Every named step, the first time that it is reached, and later ones."""
    found: dict[str, Play] = {}
    for step in BEGIN:
        found[step] = at_step(step, 1, must=True)
    for step in FINISH:
        found[step] = at_the_end(step)
    for step in [*SUBMIT, *SETTLE]:
        for nth in (1, 4, 11):
            found[f"{step} #{nth}"] = at_step(step, nth, must=nth == 1)
    found |= {f"resume: {step}": in_resume(step) for step in RESUME}
    found |= {f"retry-failed: {step}": in_another_try(step) for step in SUPERSEDE}
    found |= {f"cancel: {step}": in_cancel(step) for step in CANCEL}
    for number in (1, 2, 3):
        found[f"workers and launchers {number}"] = worker
        found[f"embedded endpoint {number}"] = embedded
        found[f"served endpoint {number}"] = server
    return found


def random_moments(count: int) -> dict[str, Play]:
    """So many random moments."""
    return {f"random {number}": at_random for number in range(count)}


def play(name: str, how: Play, served: Served, seed: int) -> Account:
    """Play one case; what came of it."""
    chance = random.Random(f"{seed} {name}")
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    ms = 400 if name.startswith("cancel") else chance.choice((0, 4, 12))
    spans = {"queued": (12, 40), "held": (8, 25), "streamed": (8, 20)}
    runs = {job: chance.randint(*span) for job, span in spans.items()}
    try:
        scene = Scene.make(
            folder / "case",
            runs=runs,
            lost=chance.choice(("fail", "resubmit")) if not name.startswith("retry-failed") else "fail",
            ms=ms,
            width=chance.choice((3, 8, 20)),
        )
        stand = Stand(scene, served, chance)
        try:
            how(stand)
        except (Stuck, Broken, OSError) as error:
            stand.account.problems.append(f"{type(error).__name__}: {error}")
        stand.account.problems = [f"[{name}, seed {seed}] {one}" for one in stand.account.problems]
        return stand.account
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play_all(cases: dict[str, Play], seed: int, *, tell: Callable[[str], None] = print) -> Account:
    """Play every case, two at a time, each beside an endpoint that outlives its runners."""
    account = Account()
    free: SimpleQueue[Served] = SimpleQueue()

    def one(name: str, how: Play) -> Account:
        served = free.get()
        try:
            return play(name, how, served, seed)
        finally:
            free.put(served)

    with served_for_all() as first, served_for_all() as second, ThreadPoolExecutor(AT_ONCE) as pool:
        free.put(first)
        free.put(second)
        for number, found in enumerate(pool.map(one, cases, cases.values()), 1):
            account.add(found)
            for problem in found.problems[:SHOWN]:
                tell(problem)
            if number % 25 == 0 or number == len(cases):
                tell(f"  {number} of {len(cases)} cases, {account.kills} kills, {len(account.problems)} problems")
    return account


def _is_there(process: "subprocess.Popen[str]", stand: Stand, wanted: int) -> bool:
    """Whether the endpoint has accepted *wanted* jobs, or nothing more will come."""
    return process.poll() is not None or stand.events >= wanted


def _has_settled(process: "subprocess.Popen[str]", stand: Stand, wanted: int) -> bool:
    """Whether *wanted* runs are settled, or nothing more will be."""
    return process.poll() is not None or len(stand.settled()) >= wanted
