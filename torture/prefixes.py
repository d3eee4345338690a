"""
Disk prefixes: what one batch did to its disk is recorded, and every moment of it is laid out in a folder and gone on
with, as if the power had gone then.

The batch is killed once, resumed, and tried again by a person, so that mending and rewriting are in the record, too.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from runner import results
from runner.errors import RunnerError
from runner.execute import ended, execute
from runner.options import Options
from torture import shim
from torture.processes import TOKEN, finish, start
from torture.replay import Disk, Op, lay_out, read, torn
from torture.scene import Account, Scene, audit
from torture.stub import Job, Stub
from torture.told import Told

RECORDED = ("-m", "torture.recorded")

KINDS = ("present", "absent", "torn", "mixed")
"""What is left of what came after the last sync: all, nothing, all but the end of the last write, or any of it."""

ROWS = {
    "present": "process gone, all that it wrote is on disk",
    "absent": "power cut, only what was synced is on disk",
    "torn": "torn last record",
    "mixed": "power cut, any part of what was not synced is on disk",
}
"""What each is called in the table."""

SHOWN = 6
"""So many problems of a recording are told; they are often the same."""

MEMORY = Path("/dev/shm")
"""Where files are laid out, if there is such a place."""

Names = dict[str, bytes | str | None]


@dataclass
class Recording:
    """What was done to the disk, in order, and the jobs that were sent meanwhile, in order."""

    scene: Scene
    ops: list[Op]
    jobs: dict[str, Job]
    retried_at: int
    """Where in *ops* a person's wish to try again begins: from there on an answer that was lost may be sent again."""
    keep: frozenset[str]

    def kept_as(self, seed: int) -> Path:
        """Where it is kept, if something is wrong with a moment of it."""
        return Path(tempfile.gettempdir()) / f"torture-prefixes-{seed}.tar.gz"

    def keep_for(self, seed: int) -> None:
        """Keep it: its moments are of processes, so no seed makes the same ones again."""
        folder = self.scene.folder
        told = {
            "folder": str(folder),
            "runs": dict(self.scene.runs),
            "jobs": self.jobs,
            "retried_at": self.retried_at,
            "keep": sorted(self.keep),
        }
        (folder.parent / "recording.json").write_text(json.dumps(told))
        with tarfile.open(self.kept_as(seed), "w:gz") as tar:
            for name in ("recording.json", "record", *(f"case/{name}" for name in self.keep)):
                tar.add(folder.parent / name, arcname=name)

    @classmethod
    @contextmanager
    def kept(cls, path: Path) -> Iterator["Recording"]:
        """One that was kept at *path*, in the folder that it was made in, which is gone afterwards."""
        with tarfile.open(path) as tar:
            member = tar.extractfile("recording.json")
            assert member is not None
            told = json.load(member)
            folder = Path(told["folder"])
            folder.parent.mkdir(parents=True)
            tar.extractall(folder.parent)
        try:
            scene = Scene(folder, "scene", told["runs"], "fail", folder / "at", 0)
            keep = frozenset(told["keep"])
            yield cls(scene, read(folder.parent / "record"), told["jobs"], told["retried_at"], keep)
        finally:
            shutil.rmtree(folder.parent)

    def jobs_until(self, moment: int) -> dict[str, Job]:
        """The jobs of which the request had left by then."""
        sent = Counter(op.path.split()[1] for op in self.ops[:moment] if op.path.startswith("sent "))
        found = {}
        for job_id, job in self.jobs.items():
            if sent[job["hash"]] > 0:
                sent[job["hash"]] -= 1
                found[job_id] = job
        return found

    def saved_until(self, moment: int) -> dict[str, str]:
        """By key, the digests of the lines of success that were acknowledged as durable by then."""
        marks = [op.path.split() for op in self.ops[:moment] if op.kind == "mark" and op.path.startswith("settled ")]
        return {key: digest for _, key, digest, state in marks if state == "succeeded"}


def record(folder: Path, stub: Stub, chance: random.Random) -> Recording:
    """Run a batch that is killed on its way, gone on with, and tried again, and write down what it does to its disk."""
    runs = {"queued": chance.randint(5, 8), "held": chance.randint(3, 4), "streamed": chance.randint(2, 3)}
    scene = Scene.make(folder / "case", runs=runs, lost="fail", width=chance.choice((2, 4)), ms=0)
    keep = frozenset(path.name for path in scene.folder.iterdir())
    log = folder / "record"
    first: list[str | Path] = ["run", scene.job_file, "--local", stub.url]
    kill = (chance.randint(90, 220), chance.choice(("before", "after", "torn")))
    legs: list[tuple[list[str | Path], tuple[int, str] | None]] = [(first, kill), ([*first, "--resume"], None)]
    legs += [(["resume", scene.name, "--local", stub.url, "--retry-failed"], None)]
    stub.recall({})
    retried_at = 0
    for words, cut in legs:
        retried_at = len(read(log)) if log.exists() else 0
        env = shim.variables(scene.folder, log=log, kill=cut)
        ran = finish(start(words, cwd=scene.folder, env=env, main=RECORDED))
        if ran.code not in (0, 1, -9):
            raise AssertionError(f"the batch to be recorded ended with {ran}")
    return Recording(scene, read(log), stub.jobs, retried_at, keep)


@dataclass
class Replayer:
    """Lays out one moment after another, and goes on from it."""

    recording: Recording
    stub: Stub
    seed: int
    account: Account = field(default_factory=Account)
    _seen: set[int] = field(default_factory=set)

    def moments(self) -> Iterator[tuple[int, str, Names]]:
        """Every moment, each way it may have been left, unless it was the same before."""
        scene = self.recording.scene
        disk = Disk(scene.folder)
        for number, op in enumerate([*self.recording.ops, None]):
            left: dict[str, Names] = {"present": disk.present(), "absent": dict(disk.absent())}
            for again in range(2):
                left[f"mixed {again}"] = disk.mixed(random.Random(f"{self.seed} {number} {again}"))
            if op is not None:
                half = torn(op)
                if half is not None:
                    ahead = dict(left["present"])
                    content = ahead.get(op.path)
                    if isinstance(content, bytes):
                        data = bytearray(content)
                        data.extend(bytes(max(0, half.offset - len(data))))
                        data[half.offset : half.offset + len(half.data)] = half.data
                        left["torn"] = {**ahead, op.path: bytes(data)}
                disk.do(op)
            for kind, names in left.items():
                moment = hash((self._known(number), tuple(sorted(names.items(), key=lambda item: item[0]))))
                if moment not in self._seen:
                    self._seen.add(moment)
                    yield number, kind, names

    def _known(self, number: int) -> tuple[int, int]:
        """How many jobs were sent and lines acknowledged by then: the same disk means another thing with more."""
        marks = [op.path[:4] for op in self.recording.ops[:number] if op.kind == "mark"]
        return marks.count("sent"), marks.count("sett")

    def play(self, number: int, kind: str, names: Names) -> None:
        """Lay out one moment, go on from it, and hold what came of it against what had been done by then."""
        recording, scene = self.recording, self.recording.scene
        lay_out(scene.folder, names, keep=recording.keep)
        jobs = recording.jobs_until(number)
        self.stub.recall(jobs)
        where = f"[prefix {number} of {len(recording.ops)}, {kind}, seed {self.seed}]"
        if jobs and not scene.batches():
            self.account.problems.append(f"{where} {len(jobs)} jobs were sent, and no batch knows of them")
        try:
            code = go_on(scene, self.stub.url)
            # That a leftover was removed may be lost with the power, and harms nobody.
            is_tidy = kind in ("present", "torn")
            may_resend = number >= recording.retried_at
            found = audit(scene, self.stub.truth, code=code, may_resend=may_resend, is_tidy=is_tidy)
            found.problems += self._unsaved(number)
            if number % 10 == 0:
                found.problems += self._over(code)
        except RunnerError as error:
            found = Account(cases=1, problems=[error.render()])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this moment's problem
            found = Account(cases=1, problems=[f"{type(error).__name__}: {error}"])
        found.problems = [f"{where} {one}" for one in found.problems]
        self.account.add(found)

    def _unsaved(self, number: int) -> list[str]:
        """The results that were acknowledged as durable, and are not there as they were."""
        saved = self.recording.saved_until(number)
        with self.recording.scene.batch.results.open("rb") as file:
            there = {results.digest(line).hex() for line in file}
        self.account.lost += (gone := len(set(saved.values()) - there))
        return [f"{gone} results that were acknowledged as durable are not there as they were"] if gone else []

    def _over(self, code: int) -> list[str]:
        before = self.stub.truth.accepted
        again = go_on(self.recording.scene, self.stub.url)
        same = self.stub.truth.accepted == before and again == code
        return [] if same else [f"a finished batch, gone on with, sent jobs or ended with {again} after {code}"]


def go_on(scene: Scene, url: str) -> int:
    """As ``runner resume`` does, or ``runner run --resume`` where there is no batch yet; the exit code."""
    batches = scene.batches()
    if not batches:
        return asyncio.run(execute(Options(scene.job_file, resume=True, local_url=url))).exit_code
    before = ended(batches[-1], retry_failed=False)
    if before is not None:
        return before.exit_code
    return asyncio.run(execute(Options.of_batch(batches[-1], local_url=url))).exit_code


@dataclass(frozen=True)
class Wish:
    """Which moments to play: every *every*-th, *most* of all at most, or the one called *case* (``412 mixed 1``)."""

    every: int = 1
    most: int | None = None
    case: str | None = None


Found = dict[str, Account]
"""What came of the moments, by the kind of them."""


def replay(recording: Recording, stub: Stub, seed: int, wish: Wish) -> Found:
    """Go on from the moments of a *recording*."""
    os.environ["RUNNER_LOCAL_TOKEN"] = TOKEN
    step = wish.every
    if wish.most is not None:
        step = max(step, -(-sum(1 for _ in Replayer(recording, stub, seed).moments()) // wish.most))
    replayer = Replayer(recording, stub, seed)
    found: Found = {}
    for count, (number, kind, names) in enumerate(replayer.moments()):
        if count % step != seed % step if wish.case is None else f"{number} {kind}" != wish.case:
            continue
        replayer.account = Account()
        replayer.play(number, kind, names)
        if replayer.account.problems:
            again = f"python -m torture.prefixes --recording {recording.kept_as(seed)} --case '{number} {kind}'"
            replayer.account.problems.append(f"  again: {again} --seed {seed}")
        replayer.account.tried = 1
        found.setdefault(kind.split()[0], Account()).add(replayer.account)
    return found


def recorded(seed: int, wish: Wish) -> Found:
    """Record one batch and replay its moments. What went wrong is kept, to be played again."""
    folder = Path(tempfile.mkdtemp(prefix="torture-disk-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        with Stub() as stub:
            recording = record(folder, stub, random.Random(f"prefixes {seed}"))
            found = replay(recording, stub, seed, wish)
        if any(one.problems for one in found.values()):
            recording.keep_for(seed)
        found.setdefault("present", Account()).kills += 1
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replay_all(
    seed: int, *, batches: int = 2, wish: Wish | None = None, at_once: int = 2, tell: Callable[[str], None] = print
) -> Told:
    """Record so many batches, and replay each; two at a time."""
    told = Told("prefixes", "disk")
    seeds: Sequence[int] = [seed * 1000 + number for number in range(batches)]
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        for one, found in zip(seeds, pool.map(recorded, seeds, [wish or Wish()] * batches), strict=True):
            problems = [text for account in found.values() for text in account.problems]
            tell(f"  recording {one}: {sum(a.cases for a in found.values())} moments, {len(problems)} problems")
            for text in problems[:SHOWN]:
                tell(text)
            for kind, account in found.items():
                told.add(ROWS[kind], account)
    return told


def main() -> int:
    """Replay what the command line asks for; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m torture.prefixes", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the batches and of what chance leaves; by default one of chance")
    parser.add_argument("--batches", type=int, default=2, help="record so many")
    parser.add_argument("--every", type=int, default=2, metavar="N", help="play every Nth moment; default 2")
    parser.add_argument("--most", type=int, metavar="N", help="play N moments of each batch at most")
    parser.add_argument("--recording", type=Path, metavar="FILE", help="replay this one, which a failure left")
    parser.add_argument("--case", metavar="MOMENT", help="with --recording: this moment alone, as '412 mixed 1'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")
    asked = parser.parse_args()
    seed = random.randrange(100_000) if asked.seed is None else asked.seed
    wish = Wish(asked.every, asked.most, asked.case)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    if asked.recording is not None:
        told = Told("prefixes", "disk")
        with Recording.kept(asked.recording) as recording, Stub() as stub:
            for kind, account in replay(recording, stub, seed, wish).items():
                told.add(ROWS[kind], account)
        print(*told.problems, sep="\n")
    else:
        told = replay_all(seed, batches=asked.batches, wish=wish, tell=lambda text: print(text, flush=True))
    seconds = time.monotonic() - began
    print(*told.lines(), f"{len(told.problems)} problems in {seconds:.0f} s", sep="\n")
    if asked.json is not None:
        told.write(asked.json, seed=seed, seconds=seconds)
    return 1 if told.problems else 0


if __name__ == "__main__":
    sys.exit(main())
