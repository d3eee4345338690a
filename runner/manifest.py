"""Say what a batch ran: enough to repeat it."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

from runner.batch import Folder, git_state
from runner.check import JobFile
from runner.clock import iso
from runner.options import Options
from runner.plan import Plan
from runner.values import JsonObject

LIBRARIES = ("runpod-runner", "aiohttp", "pydantic", "jinja2", "pyyaml")


def renewed(before: JsonObject, now: JsonObject) -> JsonObject:
    """
    The manifest of a batch that goes on with what *now* says, after it was started with what *before* says.

    What the runs were made of until then is kept under ``changes``, the oldest first.
    """
    parts = ("started_at", "job_file", "inputs", "spec", "vars", "plan", "versions", "git", "argv")
    kept = {name: now[name] for name in ("batch", "name")} | {name: before[name] for name in parts}
    return now | {"started_at": before["started_at"], "changes": [*before.get("changes", []), kept]}


def manifest(folder: Folder, options: Options, job_file: JobFile, plan: Plan, *, started_at: float) -> JsonObject:
    """The manifest of the batch in *folder*; secrets stand in it as the references that the job file has."""
    return {
        "batch": folder.id,
        "name": job_file.name,
        "started_at": iso(started_at),
        "job_file": {"path": str(job_file.path.absolute()), "sha256": job_file.sha256},
        "inputs": [
            {"path": str(one.path.absolute()), "sha256": one.sha256, "size_bytes": one.size_bytes, "rows": one.rows}
            for one in plan.inputs
        ],
        "spec": job_file.spec.model_dump(mode="json", by_alias=True),
        "vars": job_file.vars,
        "overrides": options.chosen,
        "local_url": options.local_url,
        "plan": {name: job.runs for name, job in plan.jobs.items()},
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "git": git_state(job_file.folder),
        "host": platform.node(),
        "working_directory": str(Path.cwd()),
        "argv": sys.argv,
    }
