"""Divide what a job file allows among the shards of a batch, so that all together keep it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from runner.check import JobFile
from runner.errors import UsageError
from runner.needs import needed
from runner.scalars import Limit
from runner.shards import Shard
from runner.spec import Endpoint, Job, RateLimits, RemoteEndpoint
from runner.width import ADAPTIVE

ADDED_UP = ("run", "runsync", "status", "cancel")
"""Rates that need a call for each shard; the others hold on average then. RunPod's table has no limit for /health."""


def divided(job_file: JobFile, shard: Shard, only: Sequence[str] = ()) -> JobFile:
    """
    *job_file* as *shard* runs it: `stop_when` and the concurrency of jobs are its part of what the file says; those of
    endpoints, and rates, are divided where they are used.

    Raises:
        UsageError: jobs need one another, or read stdin; or a limit has no part for each shard.
    """
    chosen = job_file.chosen(only)
    for name in chosen:
        if needs := needed(job_file.jobs[name]):
            raise UsageError(
                f"job '{name}' needs job '{needs[0]}', whose runs are in all shards, and no shard waits for another",
                fix="run it without --shard, or let jobs that need nothing be in a job file of their own",
            )
    for name in chosen:
        if job_file.jobs[name].mode == "batch":
            raise UsageError(
                f"job '{name}' goes by RunPod's Batch API, whose limits on batches at once can't be divided",
                fix="run it without --shard, or with mode: async",
            )
    if job_file.reads_stdin(only):
        raise UsageError(
            "rows come from stdin, and each shard must read all rows to know its own",
            fix="name a file that every host has in 'rows.file'",
        )
    for what, count in _counts(job_file, chosen):
        if count < shard.of:
            raise UsageError(
                f"--shard {shard}: {what} is {count}, less than one for each shard",
                fix=f"use at most {count} shard{'' if count == 1 else 's'}, or raise it in the job file",
            )
    jobs = {name: _job(job, shard) if name in chosen else job for name, job in job_file.jobs.items()}
    return replace(job_file, shard=shard, jobs=jobs)


def _counts(job_file: JobFile, chosen: Sequence[str]) -> Iterator[tuple[str, int]]:
    """What is divided into whole numbers, in words, and how much of it there is."""
    for name in dict.fromkeys(job_file.jobs[one].endpoint for one in chosen):
        yield from _endpoint(name, job_file.endpoints[name])
    for name in chosen:
        job = job_file.jobs[name]
        if job.concurrency is not None:
            yield f"'concurrency' of job '{name}'", job.concurrency
        if job.stop_when.failed_count is not None:
            yield f"'stop_when.failed' of job '{name}'", job.stop_when.failed_count


def _endpoint(name: str, endpoint: Endpoint) -> Iterator[tuple[str, int]]:
    limits = endpoint.rate_limits if isinstance(endpoint, RemoteEndpoint) else RateLimits()
    if endpoint.concurrency is None:
        yield f"the adaptive 'concurrency' of endpoint '{name}'", ADAPTIVE
    else:
        yield f"'concurrency' of endpoint '{name}'", endpoint.concurrency
    for bucket in ADDED_UP:
        yield f"'rate_limits.{bucket}' of endpoint '{name}'", getattr(limits, bucket).count


def _job(job: Job, shard: Shard) -> Job:
    stop = job.stop_when
    part: dict[str, object] = {}
    if stop.failed_count is not None:
        part["failed"] = Limit(shard.count(stop.failed_count), None)
    if stop.cost_usd is not None:
        part["cost_usd"] = stop.cost_usd / shard.of
    concurrency = None if job.concurrency is None else shard.count(job.concurrency)
    return job.model_copy(update={"stop_when": stop.model_copy(update=part), "concurrency": concurrency})
