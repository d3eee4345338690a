"""RunPod's bounds, and times and retries that can't be meant: pure checks of values that each are valid alone."""

import re
from collections.abc import Iterator

from runner.spec import Endpoint, Job, LocalEndpoint
from runner.units import duration
from runner.wording import Finding, Loc

Trouble = tuple[str, str | None]
"""A message, and what to do about it."""

EXECUTION_TIMEOUT_S = (5.0, 7 * 86_400.0)
TTL_S = (10.0, 7 * 86_400.0)
POLL_S = (0.05, 300.0)
_ENDPOINT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_BASE_URL = re.compile(r"(https?)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?(/[\w./~-]*)?", re.ASCII)
_URL = re.compile(r"(https?://[^\s/?#@]+|\$\{)[^\s]*", re.IGNORECASE)
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]", re.ASCII)


def problems(loc: Loc, job: Job, endpoint: Endpoint | None) -> Iterator[tuple[Finding, bool]]:
    """What is wrong with the times of the job at *loc*, and whether it is only a warning."""
    yield from ((finding, False) for finding in _policy(loc, job, endpoint))
    yield from _timeouts(loc, job)
    yield from _batch(loc, job)
    retry = job.retry
    if retry.wait_initial_s > retry.wait_max_s:
        message = (
            f"'wait_initial' ({duration(retry.wait_initial_s)}) is above 'wait_max' ({duration(retry.wait_max_s)})"
        )
        # At one of the two, for the mapping may be the job's and both be defaults.
        key = "wait_initial" if "wait_initial_s" in retry.model_fields_set else "wait_max"
        yield Finding((*loc, "retry", key), message), False
    yield from ((finding, False) for finding in _retry_when(loc, job))
    yield from ((finding, False) for finding in _poll(loc, job))
    is_unknown = endpoint is not None and endpoint.cost_per_second is None and job.cost is None
    if job.stop_when.cost_usd is not None and is_unknown:
        yield Finding((*loc, "stop_when", "cost"), *no_rate("stop_when", job.endpoint), at_key=True), False
    if job.reuse != "never" and isinstance(endpoint, LocalEndpoint) and endpoint.handler is None:
        kind = "external" if endpoint.external else "command"
        message = f"nothing is reused: what the workers of a local endpoint with '{kind}' run can't be known again"
        yield Finding((*loc, "reuse"), message, "give the endpoint a handler, or leave 'reuse' out"), True


def _batch(loc: Loc, job: Job) -> Iterator[tuple[Finding, bool]]:
    """What does not go together with the Batch API."""
    if job.mode != "batch":
        if job.batch_key is not None:
            message = f"'batch_key' does nothing in mode {job.mode}: it is for mode batch"
            yield Finding((*loc, "batch_key"), message, "write mode: batch, or leave it out"), True
        return
    for key in ("webhook", "s3_config"):
        if getattr(job, key) is not None:
            message = f"'{key}' can't be used in mode batch: whether RunPod's Batch API heeds it is not documented"
            yield Finding((*loc, key), message, "leave it out, or write mode: async"), False
    if job.batch_key is None:
        return
    if isinstance(job.input, dict) and job.batch_key in job.input:
        message = f"'{job.batch_key}' is the batch_key, which is put into each input: the input can't have it itself"
        yield Finding((*loc, "input", job.batch_key), message, "give one of them another name"), False
    elif job.input and not isinstance(job.input, dict | str):
        message = "batch_key needs an input that is a mapping: that is where the key is put"
        yield Finding((*loc, "input"), message, "write it under a key, as input: {items: …}"), False


def no_rate(where: str, endpoint: str) -> Trouble:
    """What is wrong with a bound on the cost in *where*: of *endpoint* it is not known what a second costs."""
    message = f"'cost' in '{where}' needs to know what a second on '{endpoint}' costs"
    return message, f"give endpoint '{endpoint}' its cost_per_second, in USD; or the job a 'cost', if its outputs tell"


def _retry_when(loc: Loc, job: Job) -> Iterator[Finding]:
    if job.retry_when is None:
        return
    if job.retry.attempts < 2:
        message = "'retry_when' never acts: 'retry.attempts' is 1, so there is no second"
        yield Finding((*loc, "retry_when"), message, "write retry: {attempts: 2}, or more", at_key=True)
    if "outcomes" in job.retry.model_fields_set:
        message = "'outcomes' is not looked at where 'retry_when' decides"
        words = " or ".join(f"outcome == '{outcome}'" for outcome in job.retry.outcomes)
        yield Finding((*loc, "retry", "outcomes"), message, f"write into retry_when: {words}", at_key=True)


def _poll(loc: Loc, job: Job) -> Iterator[Finding]:
    shortest, longest = job.poll.min_s, job.poll.max_s
    low, high = POLL_S
    if shortest < low:
        yield Finding((*loc, "poll", "min"), f"looks are at least {duration(low)} apart, found {duration(shortest)}")
    if longest > high:
        message = f"looks are at most {duration(high)} apart, found {duration(longest)}: results are soon gone"
        yield Finding((*loc, "poll", "max"), message)
    if shortest > longest:
        message = f"'min' ({duration(shortest)}) is above 'max' ({duration(longest)})"
        yield Finding((*loc, "poll", "min" if "min_s" in job.poll.model_fields_set else "max"), message)


def _policy(loc: Loc, job: Job, endpoint: Endpoint | None) -> Iterator[Finding]:
    policy = job.policy
    shortest, longest = EXECUTION_TIMEOUT_S
    if isinstance(endpoint, LocalEndpoint):
        shortest = 0.0  # ours has no such bound, and a test of a timeout should not take 5 s
    for key, value, low, high in (
        ("execution_timeout", policy.execution_timeout_s, shortest, longest),
        ("ttl", policy.ttl_s, *TTL_S),
    ):
        if value is not None and not low <= value <= high:
            message = f"RunPod's '{key}' is {duration(low or 0.001)} to {duration(high)}, found {duration(value)}"
            yield Finding((*loc, "policy", key), message)
    if (
        policy.ttl_s is not None
        and policy.execution_timeout_s is not None
        and policy.ttl_s < policy.execution_timeout_s
    ):
        message = (
            f"'ttl' ({duration(policy.ttl_s)}) is below 'execution_timeout' ({duration(policy.execution_timeout_s)}): "
            "it counts from the submit, queue included, and ends a running job"
        )
        yield Finding(
            (*loc, "policy", "ttl"), message, "make it the longest wait in the queue and the execution_timeout"
        )


def _timeouts(loc: Loc, job: Job) -> Iterator[tuple[Finding, bool]]:
    run_s, job_s, execution_s = job.timeouts.run_s, job.timeouts.job_s, job.policy.execution_timeout_s
    if run_s is not None and execution_s is not None and run_s < execution_s:
        message = (
            f"'run' ({duration(run_s)}) is below the policy's 'execution_timeout' ({duration(execution_s)}): "
            "a job is cancelled before it may have finished"
        )
        yield Finding((*loc, "timeouts", "run"), message), True
    if run_s is not None and job_s is not None and job_s < run_s:
        message = f"'job' ({duration(job_s)}) is below 'run' ({duration(run_s)}), which then never applies"
        yield Finding((*loc, "timeouts", "job"), message), True


def id_problem(text: str) -> Trouble | None:
    """What is wrong with an endpoint id."""
    if _ENDPOINT_ID.fullmatch(text):
        return None
    return (
        "an endpoint id has letters, digits, '-' and '_' only",
        "copy it from the endpoint's page, without the URL around it",
    )


def base_url_problem(text: str) -> Trouble | None:
    """What is wrong with a base URL: the key travels with every request to it."""
    match = _BASE_URL.fullmatch(text)
    if match is None:
        return "expected a URL such as https://api.runpod.ai/v2, without a query", None
    if match[1] == "http" and not _LOOPBACK.fullmatch(match[2]):
        return "http:// would send the key in the clear: it is for loopback only", "write https://"
    return None


def url_problem(text: str) -> Trouble | None:
    """What is wrong with the URL of a webhook or a bucket. It may be a secret: no message shows it."""
    if _URL.fullmatch(text):
        return None
    return "expected an http or https URL, or a reference to one", "write https://…, or ${VAR} for a secret one"
