"""Job files of several jobs that need each other, run in this process against embedded endpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job_files import as_yaml

from runner.execute import Batch, execute
from runner.options import Options

HANDLER = '''
import base64, os, time

def handler(job):
    """Give back what it was given; fail while a file is there, wait until one is, leave one behind."""
    given = job["input"]
    if "marks" in given:
        open(given["marks"], "a").close()
    while "awaits" in given and not os.path.exists(given["awaits"]):
        time.sleep(0.005)
    if "fails_while" in given and os.path.exists(os.path.join(os.path.dirname(__file__), given["fails_while"])):
        raise ValueError("not yet")
    if given.get("fails"):
        raise ValueError("no luck")
    return given | {"data": base64.b64encode(f"picture of {given.get('n')}".encode()).decode()}
'''


def pipeline(folder: Path, jobs: Mapping[str, Mapping[str, Any]], **more: Any) -> Path:
    """A job file of *jobs*, each on a local endpoint of its own unless it says where."""
    (folder / "echo.py").write_text(HANDLER)
    endpoints = {name: {"handler": "echo.py:handler"} for name in jobs}
    whole = {
        "version": 1,
        "name": "p",
        "endpoints": endpoints,
        "jobs": {name: {"endpoint": name, "input": {"x": 1}} | dict(job) for name, job in jobs.items()},
    }
    path = folder / "p.yaml"
    path.write_text(as_yaml(whole | more))
    return path


def numbers(count: int, **more: Mapping[int, Any]) -> dict[str, Any]:
    """Rows with `n` from 0; *more* are keys that only some rows have a value other than null for."""
    return {"inline": [{"n": n} | {key: given.get(n) for key, given in more.items()} for n in range(count)]}


async def ran(path: Path, **options: Any) -> Batch:
    """The batch that a run of the file comes to."""
    return await execute(Options(path, output_dir=path.parent / "batches", **options))


async def gone_on_with(batch: Batch, **options: Any) -> Batch:
    """What going on with *batch* comes to."""
    return await execute(Options.of_batch(batch.folder, **options))


def lines_of(batch: Batch, job: str) -> list[dict[str, Any]]:
    """The lines of one job, in the order of its plan."""
    return sorted((line for line in batch.results() if line["job"] == job), key=lambda line: int(line["index"]))


def states(batch: Batch, job: str) -> list[str]:
    """How the runs of one job ended, in the order of its plan."""
    return [line["state"] for line in lines_of(batch, job)]


def why(batch: Batch, job: str) -> list[str | None]:
    """What each run of a job has as its error's message."""
    return [None if line["error"] is None else line["error"]["message"] for line in lines_of(batch, job)]


def counts(batch: Batch, job: str) -> dict[str, int]:
    """The counts of one job that are not zero, as the report has them."""
    told = batch.health["jobs"][job]
    words = ("runs", "succeeded", "failed", "cancelled", "skipped", "pending")
    return {word: told[word] for word in words if told[word]}
