"""Say what a batch ran: enough to repeat it."""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from runner.batch import Folder, git_state
from runner.check import JobFile
from runner.clock import iso
from runner.events import Destination
from runner.handlers import handler_digest
from runner.options import Options
from runner.plan import Plan
from runner.spec import LocalEndpoint
from runner.values import JsonObject

LIBRARIES = ("runpod-runner", "aiohttp", "pydantic", "jinja2", "pyyaml")


def renewed(before: JsonObject, now: JsonObject) -> JsonObject:
    """
    The manifest of a batch that goes on with what *now* says, after it was started with what *before* says.

    What the runs were made of until then is kept under ``changes``, the oldest first.
    """
    parts = ("started_at", "job_file", "inputs", "spec", "vars", "handlers", "plan", "versions", "git", "argv")
    kept = {name: now[name] for name in ("batch", "name")} | {name: before.get(name) for name in parts}
    same = {name: before.get(name) for name in ("started_at", "destinations", "fresh", "repeats")}
    return now | same | {"changes": [*before.get("changes", []), kept]}


def manifest(
    folder: Folder,
    options: Options,
    job_file: JobFile,
    plan: Plan,
    *,
    started_at: float,
    destinations: Mapping[str, Destination] = MappingProxyType({}),
) -> JsonObject:
    """
    The manifest of the batch in *folder*; secrets stand in it as the references that the job file has.

    *destinations* are where endpoints lead that are left to the environment, by name.
    """
    return {
        "batch": folder.id,
        "name": job_file.name,
        "started_at": iso(started_at),
        "fresh": options.fresh,
        "repeats": None if options.repeat is None else options.repeat.id,
        "job_file": {
            "path": str(job_file.path.absolute()),
            "sha256": job_file.sha256,
            "text": _text(job_file, options),
        },
        "inputs": [
            {"path": str(one.path.absolute()), "sha256": one.sha256, "size_bytes": one.size_bytes, "rows": one.rows}
            for one in plan.inputs
        ],
        "spec": job_file.spec.model_dump(mode="json", by_alias=True),
        "vars": job_file.vars,
        "handlers": _handlers(job_file, plan),
        "destinations": {
            name: {"base_url": to.base_url, "endpoint_id": to.endpoint_id} for name, to in destinations.items()
        },
        "overrides": options.chosen,
        "local_url": options.local_url,
        "plan": {name: job.runs for name, job in plan.jobs.items()},
        "shard": _shard(options, plan),
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "git": git_state(job_file.folder),
        "host": platform.node(),
        "working_directory": str(Path.cwd()),
        "argv": sys.argv,
    }


def _shard(options: Options, plan: Plan) -> JsonObject | None:
    """Which part of which batch it is, and how many runs all parts have together; None for a whole batch."""
    if options.shard is None:
        return None
    whole = {name: job.whole for name, job in plan.jobs.items()}
    return {"number": options.shard.number, "of": options.shard.of, "batch_id": options.batch_id, "plan": whole}


def _text(job_file: JobFile, options: Options) -> str | None:
    """The text of the job file, for people: what looks like a secret is masked. None where it is not known any more."""
    if job_file.document.lines:
        return "\n".join(job_file.document.lines)
    return None if options.repeat is None else options.repeat.read_manifest()["job_file"].get("text")


def _handlers(job_file: JobFile, plan: Plan) -> JsonObject:
    """The handler of each local endpoint that a job of *plan* runs on, with the digest of its file."""
    endpoints = {planned.job.endpoint: job_file.endpoints[planned.job.endpoint] for planned in plan.jobs.values()}
    return {
        name: {"handler": one.handler, "sha256": handler_digest(job_file.folder, one.handler)}
        for name, one in endpoints.items()
        if isinstance(one, LocalEndpoint) and one.handler is not None
    }
