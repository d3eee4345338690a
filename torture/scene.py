"""
A batch to be tortured: what it runs, what must have come of it, and what the endpoint says about it.

The endpoint's own log of accepted jobs is the oracle: it knows what was paid for, whatever the runner's files say.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from runner.batch import Folder
from runner.ledger import Ledger
from runner.local.accepted import input_hash
from runner.results import digest

HANDLER = """
import base64, os, time

def handler(job):
    given = job["input"]
    tries = os.path.join(given["at"], f"{given['job']}-{given['n']}")
    before = os.path.getsize(tries) if os.path.exists(tries) else 0
    with open(tries, "a") as file:
        file.write("x")
    time.sleep(given["ms"] / 1000)
    if before < given["fails"]:
        if given["n"] % 2:
            raise ValueError("no horse yet")
        return {"n": -1}
    text = f"{given['job']} {given['n']}\\n" * 40
    return {"n": given["n"], "text": base64.b64encode(text.encode()).decode()}

def words(job):
    for number in range(4):
        time.sleep(job["input"]["ms"] / 4000)
        yield {"n": job["input"]["n"], "word": number}
"""

JOB_FILE = """\
version: 1
name: {name}
endpoints:
  plain: {{handler: "handler.py:handler", workers: {workers}}}
  words: {{handler: "handler.py:words", workers: {workers}}}
jobs:
"""

JOB = """\
  {job}:
    endpoint: plain
    mode: {mode}
    rows: {{file: {job}.csv}}
    concurrency: {width}
    input: {{job: {job}, n: "{{{{ row.n | int }}}}", fails: "{{{{ row.fails | int }}}}", ms: {ms}, at: "{at}"}}
    retry: {{attempts: 3, outcomes: [failed, check_failed], wait_initial: 20ms, wait_max: 50ms}}
    success_when: output.n == row.n | int
    on_answer_lost: {lost}
    artifacts:
      - path: "{job}/{{{{ run.index }}}}.txt"
        base64: "{{{{ output.text }}}}"
"""

STREAM = """\
  streamed:
    endpoint: words
    mode: stream
    rows: {{file: streamed.csv}}
    concurrency: {width}
    input: {{job: streamed, n: "{{{{ row.n | int }}}}", fails: 0, ms: {ms}, at: "{at}"}}
    on_answer_lost: {lost}
"""

Line = dict[str, Any]


class Broken(Exception):
    """Raised when a batch did not come to what was promised. The message says what and where."""


@dataclass(frozen=True)
class Scene:
    """A job file with three jobs (async, sync, stream) in *folder*, and its runs by job."""

    folder: Path
    name: str
    runs: Mapping[str, int]
    lost: str
    at: Path
    ms: int

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        runs: Mapping[str, int] | None = None,
        lost: str = "fail",
        name: str = "scene",
        ms: int = 4,
        workers: int = 2,
        width: int = 8,
    ) -> "Scene":
        """
        Write the job file. *lost* is its ``on_answer_lost``, *ms* how long a handler takes, *width* how many runs of a
        job may be in flight.
        """
        runs = dict(runs or {"queued": 16, "held": 8, "streamed": 8})
        at = folder / "at"
        at.mkdir(parents=True)
        (folder / "handler.py").write_text(HANDLER)
        text = JOB_FILE.format(name=name, workers=workers)
        for job, count in runs.items():
            told = {"job": job, "width": width, "ms": ms, "at": at, "lost": lost}
            mode = "sync" if job == "held" else "async"
            text += STREAM.format(**told) if job == "streamed" else JOB.format(mode=mode, **told)
            rows = "".join(f"{n},{_fails(job, n)}\n" for n in range(count))
            (folder / f"{job}.csv").write_text(f"n,fails\n{rows}")
        (folder / f"{name}.yaml").write_text(text)
        return cls(folder, name, runs, lost, at, ms)

    @property
    def job_file(self) -> Path:
        """The job file."""
        return self.folder / f"{self.name}.yaml"

    @property
    def total(self) -> int:
        """All runs."""
        return sum(self.runs.values())

    @property
    def mark(self) -> str:
        """It is in the environment of every process of this scene."""
        return f"torture-{os.getpid()}-{self.folder.name}"

    @property
    def root(self) -> Path:
        """The folder of its batches."""
        return self.folder / "batches" / self.name

    @property
    def batch(self) -> Folder:
        """The newest batch that counts as one."""
        found = self.batches()
        if not found:
            raise Broken(f"there is no batch in {self.root}")
        return found[-1]

    def batches(self) -> list[Folder]:
        """The batches that are there, the oldest first."""
        found = [Folder(path) for path in self.root.iterdir() if not path.is_symlink()] if self.root.is_dir() else []
        return sorted((one for one in found if one.ledger.exists()), key=lambda one: one.id)

    def input(self, job: str, n: int) -> dict[str, Any]:
        """What the run *n* of *job* sends."""
        return {"job": job, "n": n, "fails": _fails(job, n), "ms": self.ms, "at": str(self.at)}

    def inputs(self) -> Iterator[tuple[str, int, str]]:
        """Every run: its job, its number, and its input as the endpoint's log has it."""
        for job, count in self.runs.items():
            for n in range(count):
                yield job, n, input_hash(self.input(job, n))

    def output(self, job: str, n: int) -> Any:
        """What results.jsonl has to say of a run that succeeded."""
        if job == "streamed":
            return [{"n": n, "word": number} for number in range(4)]
        sha256 = hashlib.sha256(self.artifact(job, n)).hexdigest()
        return {"n": n, "text": {"file": f"artifacts/{job}/{n}.txt", "sha256": sha256}}

    def artifact(self, job: str, n: int) -> bytes:
        """The file that is made of that output."""
        return (f"{job} {n}\n" * 40).encode()


def _fails(job: str, n: int) -> int:
    """How often the handler gives nothing of use before it does."""
    return 0 if job == "streamed" else (0, 0, 0, 1, 0, 0, 2, 0)[n % 8]


def lines(path: Path, start: int = 0) -> list[Line]:
    """The whole JSON lines of a file from byte *start* on; none where there is no file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(start)
        return [json.loads(line) for line in file if line.endswith(b"\n")]


@dataclass
class Account:
    """
    What one batch, or many, came to: what the table in docs/reliability.md says.

    *tried* is how often a fault happened, where SIGKILLs are not what counts.
    *again* are all attempts after a run's first, *resent* those of them that followed an answer that was lost: they
    may be paid twice, as somebody wished.
    """

    cases: int = 0
    kills: int = 0
    tried: int = 0
    runs: int = 0
    lost: int = 0
    paid_twice: int = 0
    answer_lost: int = 0
    again: int = 0
    resent: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Account") -> None:
        """Count *other* in."""
        self.cases += other.cases
        self.kills += other.kills
        self.tried += other.tried
        self.runs += other.runs
        self.lost += other.lost
        self.paid_twice += other.paid_twice
        self.answer_lost += other.answer_lost
        self.again += other.again
        self.resent += other.resent
        self.problems += other.problems


@dataclass(frozen=True)
class Truth:
    """What the endpoint says: the ids of the jobs it accepted, by input, and how each ended."""

    accepted: Mapping[str, Sequence[str]]
    ended: Mapping[str, str | None]

    @classmethod
    def read(cls, log: Path, start: int = 0) -> "Truth":
        """Read the endpoint's own log from byte *start* on."""
        accepted: dict[str, list[str]] = {}
        ended: dict[str, str | None] = {}
        for one in lines(log, start):
            if one["event"] == "accepted":
                accepted.setdefault(one["input"], []).append(one["job_id"])
            elif one["event"] == "done":
                ended[one["job_id"]] = one["status"]
        return cls(accepted, ended)


@dataclass(frozen=True)
class Rules:
    """
    What may come of a run.

    *may_end* are the outcomes of the last attempt that are nobody's fault here, beside completed and answer_lost;
    "skipped" among them says that a run may never have been started.
    *may_resend* says that a submit without an answer may be sent again. *is_embedded*: the endpoint is the runner's
    own, which keeps no log, and whose jobs end unpaid with it.
    """

    may_end: frozenset[str]
    may_resend: bool
    is_embedded: bool

    def may_follow(self, outcome: str | None) -> bool:
        """Whether another attempt may come after one that ended so."""
        if outcome is None:
            return self.is_embedded
        return outcome in ("failed", "check_failed") or (outcome == "answer_lost" and self.may_resend)


def audit(
    scene: Scene,
    truth: Truth,
    *,
    code: int | None = None,
    may_resend: bool | None = None,
    may_end: Collection[str] = (),
    is_embedded: bool = False,
    is_tidy: bool = True,
) -> Account:
    """
    Hold a finished batch against what the endpoint says, and against itself.

    *code* is how its last process ended, where there was one. *is_tidy* says that no file may be left over. The rest is
    of `Rules`; *may_resend* is what the job file says, where it is None.
    """
    resends = scene.lost == "resubmit" if may_resend is None else may_resend
    rules = Rules(frozenset(may_end), resends, is_embedded)
    found = Account(cases=1, runs=scene.total)
    batch = scene.batch
    by_run: dict[tuple[str, int], list[Line]] = {}
    told = batch.results.read_bytes() if batch.results.exists() else b""
    if told and not told.endswith(b"\n"):
        found.problems.append("results.jsonl ends in a torn line")
    for line in lines(batch.results):
        by_run.setdefault((line["job"], line["row"] and int(line["row"]["n"])), []).append(line)
    with Ledger.read_only(batch.ledger) as ledger:
        found.problems += _check_places(ledger, told)
        for job, n, hashed in scene.inputs():
            standing = by_run.pop((job, n), [])
            if len(standing) != 1:
                found.lost += not standing
                found.problems.append(f"{job} {n} has {len(standing)} lines in results.jsonl")
                continue
            _audit_run(scene, ledger, truth, standing[0], truth.accepted.get(hashed, ()), found, rules)
    if by_run:
        found.problems.append(f"results.jsonl has lines of runs that nobody planned: {sorted(by_run)}")
    found.problems += _check_report(scene, batch)
    expected = 1 if any(line["state"] == "failed" for line in lines(batch.results)) else 0
    if code is not None and code != expected:
        found.problems.append(f"the last process ended with {code}, not {expected}")
    left = [path.name for path in batch.path.rglob("*") if path.name.endswith((".part", ".tmp", ".new"))]
    if left and is_tidy:
        found.problems.append(f"files are left over: {left}")
    return found


def _audit_run(
    scene: Scene,
    ledger: Ledger,
    truth: Truth,
    line: Line,
    accepted: Sequence[str],
    found: Account,
    rules: Rules,
) -> None:
    """Hold one run's line against its attempts in the ledger, and those against the endpoint."""
    job, n = line["job"], int(line["row"]["n"])
    name = f"{job} {n} ({line['key']})"
    attempts = ledger.attempts(line["key"])
    known = {one.job_id for one in attempts if one.job_id is not None}
    unanswered = [one for one in attempts if one.job_id is None]
    found.answer_lost += len(unanswered)
    found.again += max(0, len(attempts) - 1)
    strangers = [one for one in accepted if one not in known]
    if known - set(accepted) and not rules.is_embedded:
        found.problems.append(f"{name}: the endpoint never heard of {sorted(known - set(accepted))}")
    if len(strangers) > len(unanswered):
        found.paid_twice += len(strangers) - len(unanswered)
        found.problems.append(f"{name}: {strangers} were accepted, and only {len(unanswered)} answers counted as lost")
    if line["attempts"] != len(attempts):
        found.problems.append(f"{name}: {line['attempts']} attempts in its line, {len(attempts)} in the ledger")
    for one, following in pairwise(attempts):
        ended = one.ending.outcome if one.ending else None
        if not rules.may_follow(ended):
            found.paid_twice += 1
            found.problems.append(f"{name}: attempt {following.number} followed one that was {ended}")
        found.resent += ended == "answer_lost"
        if one.job_id is not None and ended == "failed" and truth.ended.get(one.job_id) == "COMPLETED":
            found.problems.append(f"{name}: a job that completed was called failed")
    if line["outcome"] == "answer_lost" and scene.lost == "fail":
        if attempts[-1].job_id is not None:
            found.lost += 1
            found.problems.append(f"{name}: its id was known, and it was called answer_lost")
        return
    if line["state"] == "skipped" and "skipped" in rules.may_end and not accepted:
        return
    if line["outcome"] == "cancelled" and truth.ended.get(line["job_id"]) == "COMPLETED":
        found.lost += 1
        found.problems.append(f"{name}: {line['job_id']} had completed, and it was called cancelled")
    if line["outcome"] != "completed":
        if line["outcome"] not in rules.may_end or not line["error"]:
            found.lost += 1
            found.problems.append(f"{name}: {line['outcome']}: {line['error']}")
        return
    if not rules.is_embedded and truth.ended.get(line["job_id"]) != "COMPLETED":
        found.problems.append(f"{name}: succeeded by {line['job_id']}, of which the endpoint does not say so")
    if line["output"] != scene.output(job, n):
        found.lost += 1
        found.problems.append(f"{name}: its output is {str(line['output'])[:200]}")
    for path in line["artifacts"]:
        file = scene.batch.path / path
        if not file.exists() or file.read_bytes() != scene.artifact(job, n):
            found.lost += 1
            found.problems.append(f"{name}: {path} is not what it was made of")


def _check_places(ledger: Ledger, told: bytes) -> list[str]:
    """Whether the lines stand where the ledger says, without gaps, as they were written."""
    end = 0
    for offset, length in ledger.places():
        if offset != end:
            return [f"results.jsonl has a gap of the ledger's at byte {end}"]
        line = told[offset : offset + length]
        if len(line) < length:
            return [f"results.jsonl has {len(told)} bytes, the ledger speaks of more"]
        place = ledger.settled_line(json.loads(line)["key"])
        if place is None or place.digest != digest(line):
            return [f"the line at byte {offset} of results.jsonl is not the one the ledger speaks of"]
        end += length
    return [] if end == len(told) else [f"results.jsonl has {len(told)} bytes, the ledger speaks of {end}"]


def _check_report(scene: Scene, batch: Folder) -> list[str]:
    """Whether health.json adds up, and counts what results.jsonl counts."""
    if not batch.health.exists():
        return ["there is no health.json"]
    health = json.loads(batch.health.read_bytes())
    totals = health["batch"]
    states = Counter(line["state"] for line in lines(batch.results))
    wrong = [
        f"health.json says {totals[state]} {state}, results.jsonl {states[state]}"
        for state in ("succeeded", "failed", "cancelled", "skipped")
        if totals[state] != states[state]
    ]
    if totals["runs"] != scene.total or totals["pending"]:
        wrong.append(f"health.json counts {totals['runs']} runs, {totals['pending']} of them pending")
    return wrong
