"""What SIGKILL is done to: the command at each of its steps, at random moments, and everything that works for it."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from runner.ledger import Ledger
from torture.cases import SLOW_MS, Case, Play
from torture.killed import BEGIN, CANCEL, FINISH, RESUME, SETTLE, SUBMIT, SUPERSEDE
from torture.processes import processes_with, serving, wait_until
from torture.scene import Scene, lines
from torture.stand import Stand

TIMES = (1, 7)
"""At which time of a step that is often reached the kill comes."""


def at_step(stand: Stand, step: str, nth: int) -> None:
    """Killed the nth time that a batch comes to *step*."""
    if not stand.kill_at(step, nth, stand.words()) and nth == 1:
        stand.account.problems.append(f"the step '{step}' was not reached")
    stand.end()


def at_the_end(stand: Stand, step: str) -> None:
    """Killed while a batch ends; it is gone on with by its name, which sends nothing."""
    if not stand.kill_at(step, 1, stand.words()):
        stand.account.problems.append(f"the step '{step}' was not reached")
    stand.audit(stand.command(["resume", stand.scene.name, "--local", stand.served.url]))


def in_resume(stand: Stand, step: str) -> None:
    """Killed in the middle, and the resume is killed at *step*."""
    stand.kill_at("line synced, row not committed", 6, stand.words())
    if not stand.kill_at(step, 1, stand.words("--resume")):
        stand.account.problems.append(f"the step '{step}' was not reached in a resume")
    stand.end()


def in_another_try(stand: Stand, step: str) -> None:
    """A batch with answers lost is tried again by a person, who is killed at *step*."""
    stand.kill_at("accepted, unanswered", 5, stand.words())
    stand.command(stand.words("--resume"))
    again = ["resume", stand.scene.name, "--local", stand.served.url, "--retry-failed"]
    if not stand.kill_at(step, 1, again):
        stand.account.problems.append(f"the step '{step}' was not reached in --retry-failed")
    stand.command(again)
    stand.audit(stand.command(again), may_resend=True)


def in_cancel(stand: Stand, step: str) -> None:
    """Killed in the middle; who cancels it then is killed at *step*, and cancels again."""
    process = stand.start(stand.words())
    wait_until(lambda: len(stand.truth.ended) >= 2, "the first jobs to end, so that others' ids are known")
    stand.kill(process)
    cancel = ["cancel", stand.scene.name]
    if not stand.kill_at(step, 1, cancel):
        stand.account.problems.append(f"the step '{step}' was not reached in a cancel")
    ran = stand.command(cancel)
    if ran.code:
        stand.account.problems.append(f"cancel came to {ran}")
    check_cancelled(stand)


def check_cancelled(stand: Stand) -> None:
    """A batch that was cancelled is settled, what was paid for is in it, and none of its jobs goes on."""
    # The last three would have been tried again, had it not been cancelled.
    may_end = {"cancelled", "skipped", "failed", "check_failed", "answer_lost"}
    stand.audit(stand.command(["status", stand.scene.name]), code=None, may_end=may_end)
    left = known_jobs(stand.scene) - set(stand.truth.ended)
    if left:
        stand.account.problems.append(f"{len(left)} jobs go on at the endpoint")


def known_jobs(scene: Scene) -> set[str]:
    """The ids of all jobs that the newest batch's ledger knows."""
    with Ledger.read_only(scene.batch.ledger) as ledger:
        keys = [line["key"] for line in lines(scene.batch.results)]
        return {one.job_id for key in keys for one in ledger.attempts(key) if one.job_id is not None}


def worker(stand: Stand) -> None:
    """Workers of the endpoint and their launchers are killed while a batch runs: their runs are, or end as crashed."""
    process = stand.start(stand.words())
    for number in range(4):
        stand.wait_events(process, 10 + 12 * number)
        what = "runner.local.launcher" if number % 2 else "runner.local.worker"
        victim = stand.chance.choice(processes_with(stand.served.mark, what) or [0])
        if victim:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            stand.account.kills += 1
    stand.audit(stand.finish(process), may_end={"completed", "crashed"})


def embedded(stand: Stand) -> None:
    """The endpoint is in the process that is killed: everything of it ends with it, and its jobs start again."""
    words: list[str | Path] = ["run", stand.scene.job_file]
    for resume in ([], ["--resume"]):
        process = stand.start([*words, *resume])
        stand.wait_settled(process, stand.chance.randint(1, stand.scene.total // 2) + len(stand.settled()))
        stand.kill(process)
        # Not before: a worker that outlived its batch would hold nothing of it, but count as left behind.
        wait_until(lambda: not processes_with(stand.scene.mark), "every process of the batch to end")
    stand.audit(stand.command([*words, "--resume"]), is_embedded=True)


def server(stand: Stand) -> None:
    """The endpoint itself is killed, and one that knows nothing of its jobs takes its place: they are `lost`."""
    folder = stand.scene.folder
    mark = {"TORTURE_MARK": stand.scene.mark}
    with serving(stand.scene.job_file, env=mark) as served:
        stand.beside(served)
        process = stand.start(stand.words())
        stand.wait_events(process, stand.chance.randint(10, stand.scene.total))
        served.process.kill()
        stand.account.kills += 1
    port = int(served.url.split(":")[2].split("/")[0])
    wait_until(lambda: not processes_with(stand.scene.mark, "runner.local"), "the workers to end with their endpoint")
    with serving(stand.scene.job_file, env=mark, port=port, log=folder / "accepted.jsonl"):
        ran = stand.finish(process)
    stand.audit(ran, may_end={"completed", "lost", "answer_lost"})


def at_random(stand: Stand, kills: int) -> None:
    """Killed when so much has happened at the endpoint, *kills* times, then gone on with to the end."""
    chance = stand.chance
    for number in range(kills):
        process = stand.start(stand.words() if number == 0 else stand.onwards())
        if chance.random() < 0.15:
            time.sleep(chance.uniform(0.0, 1.0))  # while it starts
        else:
            most = 2 * stand.scene.total
            stand.wait_events(process, stand.events + 1 + int(chance.random() * max(1, most - stand.events)))
            time.sleep(chance.uniform(0.0, 0.03))
        stand.kill(process)
    stand.end()
    if chance.random() < 0.2:
        stand.check_over()


def named() -> Iterator[Case]:
    """Every named step, the first time that it is reached, and a later one."""

    def one(name: str, fault: str, how: Play, **more: object) -> Case:
        return Case(name, f"SIGKILL {fault}", "process", "kills", how, **more)  # type: ignore[arg-type]

    for step in BEGIN:
        yield one(step, "as a batch begins, each step", partial(at_step, step=step, nth=1))
    for group, said in ((SUBMIT, "of a submit, each step"), (SETTLE, "from answer to settled run, each step")):
        for step in group:
            for nth in TIMES:
                yield one(f"{step} #{nth}", said, partial(at_step, step=step, nth=nth))
    for step in FINISH:
        yield one(step, "as a batch ends, each step", partial(at_the_end, step=step))
    for step in RESUME:
        yield one(f"resume: {step}", "of a resume, each step", partial(in_resume, step=step))
    for step in SUPERSEDE:
        how = partial(in_another_try, step=step)
        yield one(f"retry-failed: {step}", "of --retry-failed, each step", how, lost="fail")
    for step in CANCEL:
        yield one(f"cancel: {step}", "of runner cancel, each step", partial(in_cancel, step=step), ms=SLOW_MS)
    for number in (1, 2, 3):
        yield one(f"workers and launchers {number}", "of workers and launchers", worker)
        yield one(f"embedded endpoint {number}", "of runner and embedded endpoint at once", embedded)
        yield one(f"served endpoint {number}", "of the served endpoint, redeployed in the middle", server)


def random_moments(moments: int, seed: int) -> Iterator[Case]:
    """Batches that are killed at so many moments in all, one to three times each."""
    chance = random.Random(f"{seed} moments")
    number = 0
    while moments > 0:
        number += 1
        kills = min(moments, chance.choice((1, 1, 1, 2, 2, 3)))
        moments -= kills
        yield Case(f"random {number}", "random moments of SIGKILL", "process", "kills", partial(at_random, kills=kills))
