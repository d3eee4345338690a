"""
Sixteen shards at once, against one process: ``python -m torture.shards``.

All are processes of their own on this machine and share one served endpoint, which holds RunPod's rate limits. Their
merged results and report must be those of one process but for times, no run may reach the endpoint twice, and no window
of 10 s may have more submits than the file says.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torture.processes import TOKEN, environment

HANDLER = """\
def handler(job):
    n = job["input"]["n"]
    if n % 100 == 7:
        raise ValueError(f"no horse {n % 3}")
    return {"n": n * 10}
"""

JOB_FILE = """\
version: 1
name: horses
endpoints:
  local: {handler: "handler.py:handler", workers: 4, cost_per_second: 0.0001}
jobs:
  photos:
    endpoint: local
    rows: {file: rows.csv}
    input: {n: "{{ row.n | int }}"}
    on_answer_lost: fail
thresholds: {failed: "< 5%"}
"""

FIELDS = "key,job,index,state,outcome,row,matrix,repeat,input,output,error"

WINDOW_S, MOST_SUBMITS = 10.0, 950
"""RunPod's window, and the default of ``rate_limits.run`` in it."""


@dataclass(frozen=True)
class Served:
    """A served endpoint: where it is, and the log of what it was asked."""

    url: str
    log: Path

    def accepted(self) -> Iterator[tuple[float, str]]:
        """When each job was accepted, and the digest of its input."""
        for line in self.log.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "accepted":
                yield datetime.fromisoformat(event["at"]).timestamp(), event["input"]


def prepare(folder: Path, runs: int) -> Path:
    """The job file of *runs* runs in *folder*."""
    (folder / "handler.py").write_text(HANDLER)
    (folder / "rows.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(runs)))
    path = folder / "job.yaml"
    path.write_text(JOB_FILE)
    return path


@contextmanager
def serving(job_file: Path, name: str) -> Iterator[Served]:
    """Serve the endpoint of *job_file*, with RunPod's limits, while the block runs."""
    log = job_file.parent / f"{name}.jsonl"
    words = ["serve", job_file, "--log", log, "--rate-limits", "--token-env", "RUNNER_LOCAL_TOKEN", "--retention", "2h"]
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *map(str, words)],
        cwd=job_file.parent,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Served(process.stdout.readline().split()[-1], log)
    finally:
        process.terminate()
        process.wait()


def start(folder: Path, *words: str | Path, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start ``runner`` with *words* in *folder*."""
    return subprocess.Popen(
        [sys.executable, "-m", "runner", *map(str, words)],
        cwd=folder,
        env=environment(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(folder: Path, *words: str | Path) -> str:
    """What ``runner`` prints of a batch."""
    done = subprocess.run(
        [sys.executable, "-m", "runner", *map(str, words)],
        cwd=folder,
        env=environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"runner {words} exited {done.returncode}: {done.stderr}")
    return done.stdout


def timeless(health: Any) -> Any:
    """A health report without times, looks at the endpoint, and the batch's own name."""
    batch = {name: health["batch"][name] for name in ("name", "runs", "succeeded", "failed", "cancelled", "skipped")}
    batch |= {name: health["batch"][name] for name in ("pending", "retried", "reused")}
    jobs = {
        name: {key: job[key] for key in ("runs", "succeeded", "failed", "pending", "outcomes", "retried", "errors")}
        for name, job in health["jobs"].items()
    }
    return {"verdict": health["verdict"], "batch": batch, "jobs": jobs, "thresholds": health["thresholds"]}


def results(folder: Path, batch: str) -> list[str]:
    """The results of a batch without times, by key."""
    return sorted(said(folder, "results", batch, "--fields", FIELDS).splitlines())


def report(folder: Path, batch: str) -> Any:
    """The health report of a batch."""
    return json.loads(said(folder, "report", batch, "--format", "json"))


def most_in_a_window(times: Sequence[float]) -> int:
    """The most of *times* that are in any window of 10 s."""
    window: deque[float] = deque()
    most = 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - WINDOW_S:
            window.popleft()
        most = max(most, len(window))
    return most


def check(what: str, is_so: bool, wrong: list[str]) -> None:
    """Say whether something that must be so is."""
    print(f"  {'ok   ' if is_so else 'WRONG'} {what}", flush=True)
    if not is_so:
        wrong.append(what)


def check_log(served: Served, wrong: list[str]) -> None:
    """See in the endpoint's own log that nothing came twice, and nothing too fast."""
    accepted = list(served.accepted())
    twice = sum(count > 1 for count in Counter(input_ for _, input_ in accepted).values())
    check(f"{len(accepted)} jobs reached the endpoint, {twice} of them twice", not twice, wrong)
    most = most_in_a_window([at for at, _ in accepted])
    check(f"at most {most} submits in any {WINDOW_S:g} s, {MOST_SUBMITS} are allowed", most <= MOST_SUBMITS, wrong)


def main() -> int:
    """Run the shards and the one process; 0 when both came to the same."""
    parser = argparse.ArgumentParser(prog="python -m torture.shards", description=__doc__)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3200)
    chosen = parser.parse_args()
    wrong: list[str] = []
    os.environ["RUNNER_LOCAL_TOKEN"] = TOKEN
    with tempfile.TemporaryDirectory(prefix="torture-shards-") as name:
        folder = Path(name)
        job_file = prepare(folder, chosen.runs)
        with serving(job_file, "many") as served:
            began = time.monotonic()
            ids = ["--batch-id", "many", "--local", served.url, "--quiet"]
            numbers = range(1, chosen.shards + 1)
            many = [start(folder, "run", job_file, "--shard", f"{one}/{chosen.shards}", *ids) for one in numbers]
            for process in many:
                out, _ = process.communicate()
                check(f"a shard exits {process.returncode}", process.returncode in (0, 1), wrong)
                if process.returncode not in (0, 1):
                    print(out)
            print(f"{chosen.shards} shards took {time.monotonic() - began:.1f} s")
            check_log(served, wrong)
        with serving(job_file, "one") as served:
            began = time.monotonic()
            one = start(folder, "run", job_file, "--local", served.url, "--quiet")
            one.communicate()
            print(f"one process took {time.monotonic() - began:.1f} s")
        check(
            "the merged report is that of one process",
            timeless(report(folder, "many")) == timeless(report(folder, "latest")),
            wrong,
        )
        check(
            "the merged results are those of one process", results(folder, "many") == results(folder, "latest"), wrong
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
