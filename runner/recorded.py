"""
Read back from a manifest the job file that a batch was started with: what was sent can be dealt with whatever has
become of the file meanwhile.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from runner.check import JobFile
from runner.compiler import Compiler, Templates
from runner.errors import Problem, UsageError
from runner.known import Known
from runner.load import left_of
from runner.spec import ARTIFACT_KINDS, Endpoint, JobFileSpec, written
from runner.thresholds import Threshold
from runner.values import JsonObject


def recorded(manifest: JsonObject) -> JobFile:
    """
    The job file as the batch of *manifest* was started with it, or last went on with it.

    Its problems have no places, and files that it speaks of may be gone.

    Raises:
        UsageError: another version wrote the manifest, with other words.
    """
    spec, path = _spec(manifest), Path(manifest["job_file"]["path"])
    document = left_of(path, manifest["spec"], sha256=manifest["job_file"]["sha256"])
    problems: list[Problem] = []
    compiler = Compiler(document, problems)
    templates: dict[str, Templates] = {}
    for name, job in spec.jobs.items():
        known = Known.of(manifest["vars"], written(job)["rows"])
        templates[name] = compiler.templates(("jobs", name), job, known)
    if problems:
        raise _unusable(manifest, problems[0].message)
    thresholds: dict[str, tuple[Threshold, ...]] = spec.thresholds
    return JobFile(
        path=path,
        folder=path.parent,
        sha256=document.sha256,
        name=spec.name,
        description=spec.description,
        vars=manifest["vars"],
        overrides=manifest["overrides"]["vars"],
        profile=manifest["overrides"].get("profile"),
        endpoints=spec.endpoints,
        jobs=spec.jobs,
        outputs=spec.outputs,
        health=spec.health,
        thresholds=thresholds,
        spec=spec,
        warnings=(),
        templates=templates,
        document=document,
    )


def endpoints(manifest: JsonObject) -> list[tuple[str, Endpoint]]:
    """
    Every endpoint that the batch of *manifest* was ever gone on with, with its name; the first comes first.

    Raises:
        UsageError: as for `recorded`.
    """
    return [one for told in (*manifest.get("changes", ()), manifest) for one in _spec(told).endpoints.items()]


def _spec(manifest: JsonObject) -> JobFileSpec:
    told = manifest["spec"]
    jobs = {name: job | {"artifacts": list(_artifacts(job))} for name, job in told["jobs"].items()}
    try:
        return JobFileSpec.read(told | {"jobs": jobs})
    except ValidationError as error:
        raise _unusable(manifest, str(error.errors()[0]["msg"])) from None


def _artifacts(job: JsonObject) -> Iterator[JsonObject]:
    """The artifacts of *job*, each with the one kind that it has: a null is what it is made of, or nothing."""
    for artifact in job.get("artifacts", ()):
        given = {name: value for name, value in artifact.items() if value is not None}
        yield given if given.keys() & set(ARTIFACT_KINDS) else given | {"json": None}


def _unusable(manifest: JsonObject, why: str) -> UsageError:
    return UsageError(
        f"the manifest of batch {manifest['batch']} can't be read back: {why}",
        fix=f"use the runner that wrote it, version {manifest['versions']['runpod-runner']}",
    )
