"""How RunPod's Batch API is in a simulated life: what nobody documents, and what it does to a job in mode batch."""

import random
from dataclasses import dataclass
from typing import Any

KEY_NAME = "runner_key"


@dataclass(frozen=True)
class BatchDay:
    """
    *job* is the job in mode batch, *key* its ``batch_key``. *ids*: whether appending answers them. *order* is that of
    pages of at most *page* requests; *shifts* how likely one is not where it says, *fates* how likely somebody else
    ends a batch. A finalized one begins after one of *delays*, in seconds, and is known for *kept_s* after its end.
    """

    job: str
    key: str | None = None
    ids: bool = True
    order: str = "shuffled"
    page: int = 100
    shifts: float = 0.0
    fates: float = 0.0
    delays: tuple[float, ...] = (0.0,)
    kept_s: float = 86_400.0


def drawn(seed: int, jobs: dict[str, Any]) -> BatchDay | None:
    """The day of *seed*, in a fifth of the lives; then one of *jobs* is made one in mode batch."""
    rng = random.Random(f"batch {seed}")
    if rng.random() >= 0.2:
        return None
    name = rng.choice(sorted(jobs))
    job = jobs[name]
    job["mode"] = "batch"
    for key in ("webhook", "s3_config"):  # nobody says whether the Batch API heeds them
        job.pop(key, None)
    ids = rng.random() < 0.6
    has_key = not ids or rng.random() < 0.3
    if has_key:
        job["batch_key"] = KEY_NAME
    return BatchDay(
        job=name,
        key=KEY_NAME if has_key else None,
        ids=ids,
        order=rng.choice(["shuffled", "newest first", "unfinished first"]),
        page=rng.choice([1, 2, 5, 100]),
        shifts=rng.choice([0.0, 0.0, 0.1, 0.3]),
        fates=rng.choice([0.0, 0.0, 0.15, 0.4]),
        delays=rng.choice([(0.0,), (0.0, 20.0), (5.0, 600.0), (0.0, 10_000.0)]),
        kept_s=rng.choice([1800.0, 86_400.0]),
    )


def modes(seed: int, count: int) -> list[str | None]:
    """What the mode of the job is changed to before each of *count* processes; None leaves it."""
    rng = random.Random(f"modes {seed}")
    if rng.random() >= 0.25:
        return [None] * count
    return [rng.choice([None, "async", "batch"]) for _ in range(count - 1)] + [rng.choice(["async", "batch"])]
