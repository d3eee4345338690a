"""
A batch whose folder is on a real S3 server, killed again and again, and resumed each time with nothing of it left here.

    python -m torture.remote                        three kills for each step at which here and there differ
    python -m torture.remote --runs 2000 --kills 9  larger, and more kills in a row

The server is moto's. What the endpoint's own log says is held against what the batch says of itself: every run settles,
each was accepted once, but for those that the batch calls answer_lost. What is made of it are the results of a batch
that nobody killed. Exit code 1 if anything else was found.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.killed_remotely import AT_THE_END, ONCE, STEPS
from torture.processes import Served, finish, serving, start

BUCKET = "runner"
OF_THE_DAY = ("job_id", "worker_id", "attempts", "delay_time_ms", "execution_time_ms", "submitted_at", "settled_at")

HANDLER = """
import base64, time

def handler(job):
    n = job["input"]["n"]
    time.sleep(0.05)
    return {"n": n * 3, "data": base64.b64encode(b"picture of %d" % n).decode()}
"""


@dataclass(frozen=True)
class Told:
    """What came of a batch: its lines, the attempts whose answer was lost by run key, what the endpoint accepted."""

    lines: list[dict[str, Any]]
    lost: Mapping[str, int]
    kills: int


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """A real S3 server while the block runs, with a bucket; the environment by which the usual tools find it."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        env = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-store",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield env
    finally:
        server.stop()


def job_file(folder: Path, url: str, runs: int) -> Path:
    """A job file whose batches are kept at *url*: *runs* runs, each with an artifact."""
    (folder / "handler.py").write_text(HANDLER)
    (folder / "rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(runs)))
    path = folder / "job.yaml"
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "name": "far",
                "outputs": {"dir": url},
                "endpoints": {"local": {"handler": "handler.py:handler", "workers": 4}},
                "jobs": {
                    "only": {
                        "endpoint": "local",
                        "rows": {"file": "rows.jsonl"},
                        "input": {"n": "{{ row.n }}"},
                        "artifacts": [{"path": "{{ run.index }}.txt", "base64": "{{ output.data }}"}],
                        "on_answer_lost": "resubmit",
                    }
                },
            }
        )
    )
    return path


def live(
    folder: Path, path: Path, server: Served, env: Mapping[str, str], kills: Sequence[tuple[str, int]]
) -> list[str]:
    """
    Run the job file at *path*, killed at each of *kills* in turn, and resumed each time with an empty cache.

    Returns:
        The steps that were reached.
    """
    reached: list[str] = []
    words = ["run", str(path), "--resume", "--local", server.url, "--quiet"]
    more = {**env, "RUNNER_CACHE_DIR": str(folder / "cache")}
    for step, nth in kills:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        killed = finish(start([step, str(nth), *words], cwd=folder, env=more, main=("-m", "torture.killed_remotely")))
        assert killed.code in (-9, 0), killed.err
        if killed.code == 0:
            return reached  # it was over before this step came
        reached.append(step)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    ended = finish(start(words, cwd=folder, env=more))
    assert ended.code == 0, ended.err
    return reached


def told(folder: Path, url: str, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """The lines of the newest batch at *url*, by index, read in place from a machine that has nothing of it."""
    more = {**env, "RUNNER_CACHE_DIR": str(folder / "elsewhere")}
    ran = finish(start(["results", f"{url}/far"], cwd=folder, env=more))
    assert ran.code == 0, ran.err
    return sorted((json.loads(line) for line in ran.out.splitlines()), key=lambda line: int(line["index"]))


def lost(folder: Path, url: str, env: Mapping[str, str]) -> Counter[str]:
    """How many attempts of each run have the outcome answer_lost, by its input."""
    from runner.ledger import Ledger

    (path,) = (folder / "elsewhere").glob("looked-at/*/far/*/ledger.sqlite")
    with Ledger.read_only(path) as ledger:
        rows = ledger.database.rows(
            "SELECT json_extract(r.given, '$.input.n') FROM attempts a JOIN runs r ON r.key = a.key"
            " WHERE a.outcome = 'answer_lost'"
        )
        return Counter(str(row[0]) for row in rows)


def wrong(
    lines: Sequence[Mapping[str, Any]], runs: int, accepted: Mapping[str, int], answers_lost: Mapping[str, int]
) -> list[str]:
    """What is wrong with a batch of so many *runs*, by what the endpoint *accepted* of each."""
    found = [] if len(lines) == runs else [f"{len(lines)} of {runs} runs have a line"]
    for line in lines:
        n = line["index"]
        if (line["state"], line.get("output", {}).get("n")) != ("succeeded", n * 3):
            found.append(f"run {n} is {line['state']}, {line.get('error')}")
        times, most = accepted.get(str(n), 0), 1 + answers_lost.get(str(n), 0)
        if not 1 <= times <= most:
            found.append(f"run {n} was accepted {times} times, and {most - 1} answers of it were lost")
    return found


def plain(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines without what only a day has."""
    return [{name: value for name, value in line.items() if name not in OF_THE_DAY} for line in lines]


def accepted(server: Served, runs: int) -> Counter[str]:
    """How often the endpoint accepted each input, by its n."""
    from runner.local.accepted import input_hash

    known = {input_hash({"n": n}): str(n) for n in range(runs)}
    events = [json.loads(line) for line in server.log.read_text().splitlines()]
    return Counter(known[event["input"]] for event in events if event["event"] == "accepted")


def prove(folder: Path, runs: int, plans: Sequence[Sequence[tuple[str, int]]]) -> Iterator[tuple[str, list[str]]]:
    """For each of *plans*, which kills there were, and what was found to be wrong."""
    with s3() as env:
        whole = folder / "whole"
        whole.mkdir()
        url = f"s3://{BUCKET}/whole"
        path = job_file(whole, url, runs)
        with serving(path, env={"TORTURE_MARK": str(folder)}) as server:
            live(whole, path, server, env, [])
            wanted = plain(told(whole, url, env))
        for number, kills in enumerate(plans):
            here = folder / f"{number}"
            here.mkdir()
            url = f"s3://{BUCKET}/{number}"
            path = job_file(here, url, runs)
            with serving(path, env={"TORTURE_MARK": str(folder)}) as server:
                reached = live(here, path, server, env, kills)
                lines = told(here, url, env)
                answers_lost = lost(here, url, env)
                problems = wrong(lines, runs, accepted(server, runs), answers_lost)
            if plain(lines) != wanted:
                problems.append("the results are not those of a batch that nobody killed")
            said = f"killed {len(reached)} times ({', '.join(reached)}); {answers_lost.total()} answers lost"
            yield said, problems


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Those of a batch's end last, so that there is something left to be killed.
    chance = random.Random(options.seed)
    plans = []
    for step in STEPS:
        steps = sorted([step, *chance.choices(list(STEPS), k=options.kills - 1)], key=lambda one: one in AT_THE_END)
        plans.append([(one, 1 if one in ONCE else chance.randint(1, 3)) for one in steps])
    failures = 0
    with tempfile.TemporaryDirectory(prefix="runner-remote-") as folder:
        for said, problems in prove(Path(folder), options.runs, plans):
            print(f"{'WRONG' if problems else 'ok   '}  {said}", flush=True)
            for problem in problems[:10]:
                print(f"       {problem}")
            failures += bool(problems)
    print(f"{len(plans)} batches of {options.runs} runs; {failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
