"""Which shard a process is by its environment: a task of a Slurm array, or a pod of an indexed Kubernetes job. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from runner.errors import UsageError
from runner.shards import Shard, check_batch_id

SHARDS = "RUNNER_SHARDS"
"""How many shards there are. Kubernetes tells no pod, so its manifest must; Slurm's own word is held against it."""

BATCH_ID = "RUNNER_BATCH_ID"
"""What all shards of the batch call it, where ``--batch-id`` does not say."""

_TASK = "SLURM_ARRAY_TASK_ID"
_INDEX = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True, slots=True)
class Place:
    """A shard, and what all shards of its batch call that; None where nobody says."""

    shard: Shard
    batch_id: str | None


def place(env: Mapping[str, str]) -> Place:
    """
    The shard that the process of *env* is.

    Raises:
        UsageError: nothing says so, or what does contradicts itself.
    """
    slurm, kubernetes = _TASK in env, _INDEX in env
    if slurm and kubernetes:
        raise UsageError(
            f"--shard auto: {_TASK} and {_INDEX} are both set, and each means another shard",
            fix="unset one of them, or write --shard NUMBER/COUNT",
        )
    if not slurm and not kubernetes:
        raise UsageError(
            f"--shard auto: neither {_TASK} (Slurm) nor {_INDEX} (Kubernetes) is set",
            fix="start it as a task of a Slurm array or in an indexed job, or write --shard NUMBER/COUNT",
        )
    shard = _slurm(env) if slurm else _kubernetes(env)
    batch_id = env.get(BATCH_ID) or None
    if batch_id is None and slurm:
        batch_id = f"slurm-{_number(env, 'SLURM_ARRAY_JOB_ID')}"
    return Place(shard, None if batch_id is None else check_batch_id(batch_id))


def asked(shard: str, batch_id: str | None, env: Mapping[str, str]) -> Place:
    """
    The shard that the command line asks for, and its batch: *shard* is such as ``3/16``, or ``auto``.

    Raises:
        UsageError: it says no shard, or nobody says of which batch.
    """
    found = place(env) if shard == "auto" else Place(Shard.parse(shard), env.get(BATCH_ID) or None)
    chosen = batch_id or found.batch_id
    if chosen is None:
        raise UsageError(
            f"--shard {found.shard}: nothing says what all shards of the batch call it",
            fix=f"write the same --batch-id for all of them, such as 2026-11-23, or set {BATCH_ID}",
        )
    return Place(found.shard, check_batch_id(chosen))


def _slurm(env: Mapping[str, str]) -> Shard:
    task, first, last = (_number(env, name) for name in (_TASK, "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"))
    count, step = _number(env, "SLURM_ARRAY_TASK_COUNT"), _number(env, "SLURM_ARRAY_TASK_STEP", otherwise="1")
    told = f"tasks {first} to {last} in steps of {step}, {count} of them"
    is_even = step > 0 and first <= task <= last and (task - first) % step == 0 and (last - first) % step == 0
    if not is_even or (last - first) // step + 1 != count:
        raise UsageError(
            f"--shard auto: task {task} of a Slurm array with {told}, can't be told to be one shard of them",
            fix="write sbatch --array=1-16, without holes; or --shard NUMBER/COUNT",
        )
    if SHARDS in env and _number(env, SHARDS) != count:
        raise UsageError(
            f"--shard auto: {SHARDS} is {env[SHARDS]}, and the Slurm array has {count} tasks",
            fix="to start one shard again write --shard NUMBER/COUNT and --batch-id",
        )
    return Shard.checked((task - first) // step + 1, count)


def _kubernetes(env: Mapping[str, str]) -> Shard:
    index = _number(env, _INDEX)
    if SHARDS not in env:
        raise UsageError(
            f"--shard auto: {_INDEX} is {index}, and {SHARDS} is not set: Kubernetes tells no pod how many there are",
            fix=f"set {SHARDS} in the pod's env to the same number as 'completions'",
        )
    count = _number(env, SHARDS)
    if index >= count:
        raise UsageError(
            f"--shard auto: {_INDEX} is {index}, and {SHARDS} is {count}: indexes count from 0",
            fix=f"set {SHARDS} to the same number as 'completions'",
        )
    return Shard.checked(index + 1, count)


def _number(env: Mapping[str, str], name: str, *, otherwise: str | None = None) -> int:
    text = env.get(name, otherwise)
    if text is None:
        raise UsageError(f"--shard auto: {name} is not set", fix="write --shard NUMBER/COUNT")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise UsageError(f"--shard auto: {name} is no number: {text!r}", fix="write --shard NUMBER/COUNT")
    return int(text)
