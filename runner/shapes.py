"""Know what makes the results of a job what they are, beside their inputs: only the same may be reused."""

import hashlib
import os
from collections.abc import Mapping
from hashlib import blake2b

from runner import variables
from runner.check import JobFile
from runner.events import EMBEDDED, Destination
from runner.handlers import handler_digest, split
from runner.spec import LocalEndpoint, written
from runner.values import JsonObject, JsonValue, canonical

SHAPES = "shapes"
"""The name of the ledger's note: by job, the shape of its results in each process that wrote some, changes only."""

NOT_SHAPING = frozenset(
    {
        *("endpoint", "rows", "input", "needs", "when", "reuse", "retry", "retry_when", "on_answer_lost", "stop_when"),
        *("policy", "timeouts", "poll", "concurrency", "webhook", "cost", "batch_key"),
    }
)
"""
Keys of a job that make no result another: the input is in the key, the endpoint is told by where it leads, the rest
decides whether there is a result, and when.
"""

NOT_JUDGING = frozenset({"mode", "s3_config", "output_schema"})
"""Of the other keys those that hold no expression: any other may read row, matrix, repeat and vars."""


def shape(job_file: JobFile, name: str, destination: Destination) -> str | None:
    """
    The digest of all that, beside the input, makes the results of the job *name* what they are.

    None where nobody can tell: which code a `command`, an `external` worker or an endpoint that `runner serve` serves
    runs is not known here.
    """
    job = job_file.jobs[name]
    endpoint = job_file.endpoints[job.endpoint]
    where: JsonObject = {"base_url": destination.base_url, "endpoint_id": destination.endpoint_id}
    if isinstance(endpoint, LocalEndpoint):
        digest = None if endpoint.handler is None else handler_digest(job_file.folder, endpoint.handler)
        if destination.base_url != EMBEDDED or endpoint.handler is None or digest is None:
            return None
        where |= {"handler": digest, "function": (split(endpoint.handler) or ("", ""))[1]}
        where["aggregate"] = endpoint.return_aggregate_stream
    try:
        shaping = shaping_keys(job_file, name)
    except OSError:  # a schema that is gone: only who cancels a batch comes so far
        return None
    told: JsonObject = {"where": where, "job": shaping}
    if is_judged(shaping):
        told["vars"] = job_file.vars
    return blake2b(canonical(told), digest_size=16).hexdigest()


def shaping_keys(job_file: JobFile, name: str) -> JsonObject:
    """
    The keys of the job *name* that make its results what they are, those that say nothing left out.

    Raises:
        OSError: its schema is in a file that can't be read.
    """
    job = job_file.jobs[name]
    told = written(job)
    if job.s3_config is not None:  # where the worker puts things; who pays for it makes no other result
        places = (job.s3_config.bucket_name, job.s3_config.endpoint_url, job.s3_config.object_path)
        told["s3_config"] = [one and variables.resolve(one, os.environ) for one in places]
    if isinstance(job.output_schema, str):
        told["output_schema"] = hashlib.sha256((job_file.folder / job.output_schema).read_bytes()).hexdigest()
    return {key: value for key, value in told.items() if key not in NOT_SHAPING and value not in (None, [], {})}


def is_judged(shaping: JsonObject) -> bool:
    """Whether an expression has a say in the results, by the `shaping_keys` of a job."""
    return not NOT_JUDGING.issuperset(shaping)


def noted(before: JsonValue, now: Mapping[str, str | None], *, is_resumed: bool) -> JsonObject:
    """
    What a ledger is to note of the shapes of *now*, by job, after *before*, which is None where it noted nothing.

    What an older version wrote has a shape that nobody knows.
    """
    found: JsonObject = dict(before or {})
    for name, one in now.items():
        known = found.get(name, [None] if is_resumed and before is None else [])
        found[name] = known if known and known[-1] == one else [*known, one]
    return found
