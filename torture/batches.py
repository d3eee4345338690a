"""
Kill a job in mode batch at every step of its drafts, beside an endpoint that outlives it and has bad days:
``python -m torture.batches --runs 12000 --seed 1``.

The endpoint's own log is the oracle: every run settles once, and was committed to be run as often as it has attempts.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from runner.local.accepted import input_hash
from torture.killed import DRAFT, DROP
from torture.processes import Served, finish, serving, start
from torture.scene import Account
from torture.told import Told

HANDLER = """
import os
import time

def handler(job):
    given = job["input"]
    time.sleep(given.get("s", 0))
    if given["n"] % 50 == 0:
        tries = os.path.join(given["at"], str(given["n"]))
        if not os.path.exists(tries):
            open(tries, "a").close()
            raise ValueError("no horse yet")
    return {"n": given["n"]}
"""

FAULTS = (
    "batch-create:reset_after=5%",
    "batch-append:reset_after=5%",
    "batch-append:reset_before=3%",
    "batch-finalize:reset_after=10%",
    "batch-finalize:502_after=5%",
    "batch-requests:shifted_page=5%",
    "batch-requests:502=2%",
    "429=1%",
    "batch_order=shuffled",
    "batch_extra",
)
"""The days on which it all happens."""

OFTEN = ("counts read", "page not asked for", "page read", "appended, ids not committed", "ids committed")
"""Steps that are reached often: they are taken at several times."""

CANCEL_DECIDED = "batch's cancel decided"
"""A step of batches that are cancelled: it has a job of its own."""


def job_file(folder: Path, runs: int) -> Path:
    """A job of so many runs, whose drafts are small enough that there are several of them at any time."""
    (folder / "handler.py").write_text(HANDLER)
    (folder / "rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(runs)))
    job = {
        "endpoint": "local",
        "mode": "batch",
        "rows": {"file": "rows.jsonl"},
        "concurrency": max(4, runs // 40),
        "input": {"n": "{{ row.n }}", "at": str(folder)},
        "retry": {"attempts": 3, "outcomes": ["failed"], "wait_initial": "50ms", "wait_max": "200ms"},
        "poll": {"min": "50ms", "max": "500ms"},
    }
    told = {
        "version": 1,
        "name": "b",
        "endpoints": {"local": {"handler": "handler.py:handler", "workers": 2}},
        "jobs": {"a": job},
    }
    path = folder / "b.yaml"
    path.write_text(json.dumps(told))
    return path


def slow_file(folder: Path) -> Path:
    """A job that takes longer than it may, so that its RunPod batch is cancelled."""
    path = job_file(folder, 60)
    told = json.loads(path.read_text())
    job = told["jobs"]["a"] | {"timeouts": {"run": "2s"}}
    job["input"]["s"] = 0.2
    del job["concurrency"], job["retry"]
    path.write_text(json.dumps(told | {"jobs": {"a": job}}))
    return path


def kills(seed: int) -> list[tuple[str, int]]:
    """Every step, and at which time of it, in an order of the day."""
    chance = random.Random(seed)
    found = [[(step, 1)] for step in DRAFT]
    found += [[(step, nth)] for step in OFTEN for nth in (2, 5)]
    # What is given up when a batch is gone on with is a draft that was not finalized.
    found += [[("ids committed", 1), (step, 1)] for step in DROP if step != CANCEL_DECIDED]
    chance.shuffle(found)
    return [one for some in found for one in some]


def torture(folder: Path, runs: int, seed: int) -> Account:
    """Do it; what came of it."""
    path = job_file(folder, runs)
    env = {"TORTURE_MARK": f"batches-{seed}-{time.time_ns()}"}
    began = time.monotonic()
    with serving(path, env=env, faults=FAULTS) as served:
        words: list[str | Path] = ["run", path, "--output-dir", folder, "--local", served.url, "--quiet"]
        resumes, missed = 0, ""
        for step, nth in kills(seed):
            again = ["--resume"] if (folder / "b/latest").exists() else []
            ran = finish(start([step, str(nth), *words, *again], cwd=folder, env=env, main=("-m", "torture.killed")))
            resumes += ran.code == -9
            if ran.code not in (-9, 0):
                return Account(runs=runs, problems=[f"'{step}' {nth}: exit code {ran.code}: {ran.err}"])
            if ran.code == 0:
                missed = step
                break
        else:
            ran = finish(start([*words, "--resume"], cwd=folder, env=env))
        found = audit(folder, runs, served)
        if ran.code:
            found.problems.append(f"the last resume came to {ran.code}: {ran.err}")
    settled = f"{runs} runs, {resumes} of {len(kills(seed))} kills, {time.monotonic() - began:.0f} s"
    print(settled)
    if missed:
        found.problems.append(f"the batch was over before it was killed at '{missed}'")
    found.tried = found.kills = resumes
    return found


def cancelled(folder: Path, seed: int) -> Account:
    """Kill a job as it has decided to cancel its RunPod batch, and go on; what came of it."""
    path = slow_file(folder)
    env = {"TORTURE_MARK": f"batches-cancel-{seed}-{time.time_ns()}"}
    words: list[str | Path] = ["--output-dir", folder, "--quiet"]
    with serving(path, env=env) as served:
        words = ["run", path, "--local", served.url, *words]
        ran = finish(start([CANCEL_DECIDED, "1", *words], cwd=folder, env=env, main=("-m", "torture.killed")))
        last = finish(start([*words, "--resume"], cwd=folder, env=env))
        found = audit(folder, 60, served, states=("succeeded", "failed"))
    if ran.code != -9 or last.code != 1:
        found.problems.append(f"'{CANCEL_DECIDED}': exit codes {ran.code} and {last.code}: {ran.err}{last.err}")
    found.tried = found.kills = int(ran.code == -9)
    return found


def audit(folder: Path, runs: int, served: Served, states: Sequence[str] = ("succeeded",)) -> Account:
    """What the batch's results, each in one of *states*, and the endpoint's log don't agree about."""
    told = [json.loads(line) for line in (folder / "b/latest/results.jsonl").read_bytes().splitlines()]
    asked = [json.loads(line) for line in served.log.read_bytes().splitlines()]
    paid = Counter(one["input"] for one in asked if one["event"] == "accepted")
    found = Account(runs=runs)
    problems = found.problems
    found.lost = len(set(range(runs)) - {line["index"] for line in told})
    if sorted(line["index"] for line in told) != list(range(runs)):
        problems.append(f"{len(told)} lines for {runs} runs")
    for line in told:
        is_right = line["state"] in states and ("output" not in line or line["output"]["n"] == line["row"]["n"])
        if not is_right:
            problems.append(f"run {line['index']} came to {line}")
        if (times := paid[input_hash(line["input"])]) != line["attempts"]:
            found.paid_twice += times > line["attempts"]
            problems.append(f"run {line['index']} was committed {times} times, and has {line['attempts']} attempts")
    operations = Counter(one["operation"] for one in asked if one["event"] == "asked")
    dropped = operations["batch-create"] - operations["batch-finalize"]
    print(f"{sum(paid.values())} requests paid for, {dict(operations)}, {dropped} more creates than finalizes")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m torture.batches", description=__doc__)
    parser.add_argument("--runs", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")
    given = parser.parse_args(words)
    told, began = Told("batches", "process"), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-batches-") as name:
        for part in ("all", "cancelled"):
            (Path(name) / part).mkdir()
        told.add("SIGKILL of a job in mode batch, at each step", torture(Path(name) / "all", given.runs, given.seed))
        told.add("SIGKILL as a RunPod batch is cancelled", cancelled(Path(name) / "cancelled", given.seed))
    problems = told.problems
    if given.json is not None:
        told.write(given.json, seed=given.seed, seconds=time.monotonic() - began)
    for problem in problems[:20]:
        print(problem)
    print("all settled once, all paid for once" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
