"""Batch folders as a simulated endpoint would have left them: for the pages that show them."""

import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heapify, heappop, heappush
from pathlib import Path

from happened import unsynced

from runner.batch import Folder
from runner.entries import Placed
from runner.events import Accepted, Claimed, Destination, Ended, Ending, FileClaim, Intended, Sampled, Settled
from runner.ledger import Ledger, Place
from runner.results import digest, line
from runner.runs import Run
from runner.states import Outcome, Verdict
from runner.values import JsonObject, dump

START = 1_795_400_592.0
ID = "20261123T022312Z-7f3a"

TRACEBACK = """Traceback (most recent call last):
  File "/app/handler.py", line 41, in handler
    image = pipe(prompt, width=size, generator=seed).images[0]
  File "/app/pipeline.py", line 212, in __call__
    latents = self.unet(latents, timestep).sample
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate {} MiB
"""


@dataclass(frozen=True)
class Shape:
    """What a batch is like. *words* replace what foreign text says in it; nothing happens *until_s* after its start."""

    runs: int = 600
    workers: int = 6
    in_flight: int = 40
    seed: int = 7
    failing: float = 0.04
    pictures: int = 48
    execution_s: float = 4.0
    verdict: str | None = Verdict.FAIL
    start: float = START
    until_s: float | None = None
    words: JsonObject = field(default_factory=dict)

    def word(self, kind: str, usual: str) -> str:
        """The text of *kind* in this batch."""
        return str(self.words.get(kind, usual))


def made(outputs: Path, shape: Shape = Shape()) -> Folder:
    """A batch of *shape* in *outputs*, with ledger, results, artifacts and manifest."""
    chance = random.Random(shape.seed)
    folder = Folder(outputs / "horses" / ID)
    folder.path.mkdir(parents=True)
    photos = shape.word("job", "photos")
    plan = {photos: shape.runs * 4 // 5, "captions": shape.runs - shape.runs * 4 // 5}
    folder.manifest.write_bytes(dump(_manifest(folder, plan, shape)))
    with Ledger.create(folder.ledger) as ledger, folder.results.open("wb") as results:
        unsynced(ledger)
        ledger.note(started_at=shape.start, plan=plan)
        last = shape.start
        placed: list[Placed] = []
        for event in _life(folder, plan, shape, chance):
            place = None
            last = max(last, event.at if hasattr(event, "at") else last)
            if isinstance(event, Settled):
                place = Place(results.tell(), len(event.line), digest(event.line))
                results.write(event.line)
            placed.append((event, place))
            if len(placed) == 500:
                ledger.apply(placed)
                placed.clear()
        ledger.apply(placed)
        if shape.verdict is not None:
            ledger.note(verdict=shape.verdict, ended_at=last)
    return folder


def _manifest(folder: Folder, plan: JsonObject, shape: Shape) -> JsonObject:
    jobs: JsonObject = {
        name: {"endpoint": "llava" if name == "captions" else "sdxl", "rows": {}, "needs": []} for name in plan
    }
    return {
        "batch": folder.id,
        "name": "horses",
        "started_at": "2026-11-23T02:23:12.000Z",
        "job_file": {"path": "/home/ada/jobs/horses.yaml", "sha256": sha256(b"horses").hexdigest()},
        "inputs": [
            {
                "path": "/home/ada/data/prompts.csv",
                "sha256": sha256(b"prompts").hexdigest(),
                "size_bytes": 18_211,
                "rows": 160,
            }
        ],
        "spec": {
            "jobs": jobs,
            "endpoints": {"sdxl": {"cost_per_second": 0.00031}, "llava": {"cost_per_second": 0.00019}},
            "thresholds": {"failed": "< 1%", "execution_time": "p95 < 30s"},
        },
        "vars": {},
        "overrides": {},
        "local_url": None,
        "plan": plan,
        "versions": {"runpod-runner": "0.1.0", "aiohttp": "3.14.1", "pydantic": "2.12.4", "python": "3.12.3"},
        "git": {"commit": "2f5dcaa4f2b84e1c9d0a7c6e5b3a19f8d7e6c5b4", "dirty": False},
        "host": shape.word("host", "gpu-cron-1"),
        "working_directory": "/home/ada",
        "argv": ["/home/ada/.venv/bin/runner", "run", "jobs/horses.yaml", "--resume"],
    }


@dataclass(order=True)
class _Going:
    """A run on its way, by when something happens to it."""

    at: float
    number: int


Event = Intended | Accepted | Claimed | Ended | Settled | Sampled


def _life(folder: Folder, plan: JsonObject, shape: Shape, chance: random.Random) -> Iterator[Event]:
    """What happens in a batch of *shape*, in the order of time."""
    runs = [(job, index) for job, count in plan.items() for index in range(count)]
    chance.shuffle(runs)
    free = {"sdxl": [(shape.start + 20.0 + 6 * at, at) for at in range(shape.workers)]}
    free["llava"] = [(shape.start + 12.0, 0), (shape.start + 15.0, 1)]
    for one in free.values():
        heapify(one)
    ends = [shape.start + 0.02 * at for at in range(shape.in_flight)]
    heapify(ends)
    happened: list[tuple[float, int, Event]] = []
    pictures = 0
    for number, (job, index) in enumerate(runs):
        endpoint = "llava" if job == "captions" else "sdxl"
        run = _run(job, index)
        first_at = heappop(ends)
        at, attempts = first_at + 0.05, 0
        while True:
            attempts += 1
            intended_at = at
            accepted_at = at + 0.08 + chance.expovariate(1 / 0.15)
            free_at, worker = heappop(free[endpoint])
            started_at = max(accepted_at + 0.02, free_at)
            ending, executed_s = _ending(job, index, worker, shape, chance, tries=attempts)
            ended_at = started_at + executed_s
            heappush(free[endpoint], (ended_at + 0.05, worker))
            seen_at = ended_at + 0.05 + chance.expovariate(1 / 0.4)
            ending = _timed(ending, started_at - accepted_at, executed_s)
            happened.append(
                (
                    intended_at,
                    number,
                    Intended(
                        run, attempts, Destination(endpoint, "https://api.runpod.ai/v2", f"{endpoint}-id"), intended_at
                    ),
                )
            )
            happened.append(
                (accepted_at, number, Accepted(run.key, attempts, f"{run.key[:8]}-{attempts}-u1", accepted_at))
            )
            if ending.outcome is Outcome.CRASHED and attempts < 3:
                happened.append((seen_at, number, Ended(run.key, attempts, ending, seen_at)))
                at = seen_at + 1.0
                continue
            break
        if ending.outcome is Outcome.COMPLETED and job != "captions" and pictures < shape.pictures:
            pictures += 1
            claim = _picture(folder, shape, job, index)
            happened.append((seen_at - 0.01, number, Claimed(run.key, attempts, (claim,))))
        text = line(
            run,
            ending,
            state=ending.outcome.state,
            attempts=attempts,
            job_id="x",
            submitted_at=accepted_at,
            settled_at=seen_at,
        )
        happened.append((seen_at, number, Settled(run, attempts, ending.outcome.state, ending, text, seen_at)))
        heappush(ends, seen_at)
    happened.sort(key=lambda one: (one[0], one[1]))
    over_at = float("inf") if shape.until_s is None else shape.start + shape.until_s
    looks = _looks(happened, plan, shape)
    merged = sorted([*happened, *looks], key=lambda one: one[0])
    yield from (event for at, _, event in merged if at <= over_at)


def _run(job: str, index: int) -> Run:
    key = sha256(f"{job}/{index}".encode()).hexdigest()[:32]
    row = {"prompt": f"a horse number {index // 6}"}
    matrix = {"seed": index % 3 + 1, "size": (512, 1024)[index // 3 % 2]} if job != "captions" else None
    return Run(job=job, index=index, key=key, row=row, matrix=matrix, repeat=0, input={"prompt": row["prompt"]})


def _ending(
    job: str, index: int, worker: int, shape: Shape, chance: random.Random, *, tries: int
) -> tuple[Ending, float]:
    size = 2.2 if job != "captions" and index // 3 % 2 else 1.0
    executed_s = shape.execution_s * size * chance.lognormvariate(0, 0.35) * (0.35 if job == "captions" else 1)
    worker_id = shape.word(
        "worker", f"{'llava' if job == 'captions' else 'sdxl'}-{worker:02d}x{(worker * 7919) % 1296:03d}"
    )
    drawn = chance.random()
    outcome, status = Outcome.COMPLETED, "COMPLETED"
    error: JsonObject | None = None
    if drawn < shape.failing / 2:
        outcome, status = Outcome.FAILED, "FAILED"
        mib = chance.choice((512, 1024, 2048))
        error = {
            "type": "OutOfMemoryError",
            "message": shape.word("message", f"CUDA out of memory. Tried to allocate {mib} MiB"),
            "traceback": shape.word("traceback", TRACEBACK.format(mib)),
        }
    elif drawn < shape.failing * 0.7:
        outcome, status = Outcome.CHECK_FAILED, "COMPLETED"
        error = {"type": None, "message": "success_when is false: output.image is defined", "traceback": None}
    elif drawn < shape.failing * 0.8:
        outcome, status, executed_s = Outcome.TIMED_OUT, "TIMED_OUT", 60.0
        error = {"type": None, "message": "job timed out after 1 retries", "traceback": None}
    elif drawn < shape.failing and tries < 3:
        outcome, status = Outcome.CRASHED, "FAILED"
        error = {"type": None, "message": "job timed out after 2 retries; its worker died", "traceback": None}
    output = {"image": shape.word("output", "…"), "seed": index % 3 + 1}
    return Ending(outcome=outcome, output=output, error=error, status=status, worker_id=worker_id), executed_s


def _timed(ending: Ending, queued_s: float, executed_s: float) -> Ending:
    return Ending(
        outcome=ending.outcome,
        output=ending.output,
        error=ending.error,
        status=ending.status,
        worker_id=ending.worker_id,
        delay_time_ms=round(queued_s * 1000),
        execution_time_ms=round(executed_s * 1000),
    )


def _looks(
    happened: Sequence[tuple[float, int, Event]], plan: JsonObject, shape: Shape
) -> Iterator[tuple[float, int, Event]]:
    """A look every 15 s at each endpoint: its workers start, one is throttled for a while, one becomes unhealthy."""
    if not happened:
        return
    length_s = happened[-1][0] - shape.start
    at = shape.start
    while at <= shape.start + length_s:
        since = at - shape.start
        up = sum(since >= 20 + 6 * worker for worker in range(shape.workers))
        ending = since > length_s * 0.97
        throttled = int(0.3 < since / length_s < 0.45)
        unhealthy = int(since / length_s > 0.7)
        workers = {
            "idle": up if ending else 0,
            "initializing": shape.workers - up,
            "ready": up if ending else 0,
            "running": 0 if ending else max(0, up - throttled - unhealthy),
            "throttled": throttled,
            "unhealthy": unhealthy,
        }
        jobs = {
            "completed": int(since),
            "failed": 2,
            "inProgress": workers["running"],
            "inQueue": 0 if ending else 30,
            "retried": 1,
        }
        yield at, -1, Sampled("sdxl", at, jobs, workers)
        small = {
            "idle": 0,
            "initializing": int(since < 15) * 2,
            "ready": 0,
            "running": 2 * int(since >= 15),
            "throttled": 0,
            "unhealthy": 0,
        }
        yield at, -1, Sampled("llava", at, {"inProgress": 2, "inQueue": 4, "completed": 9, "failed": 0}, small)
        at += 15.0


def _picture(folder: Folder, shape: Shape, job: str, index: int) -> FileClaim:
    name = shape.word("artifact", "images/{}.png").format(index)
    path = folder.path / "artifacts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = png(96, 72, index)
    path.write_bytes(data)
    return FileClaim(f"artifacts/{name}", sha256(data).hexdigest(), len(data))


def png(width: int, height: int, seed: int) -> bytes:
    """A small landscape: sky over hills."""
    chance = random.Random(seed)
    sky = [chance.randint(120, 235) for _ in range(3)]
    hill = [chance.randint(40, 150) for _ in range(3)]
    edge = [height * (0.45 + 0.2 * chance.random()) for _ in range(5)]
    rows = b""
    for y in range(height):
        rows += b"\0"
        for x in range(width):
            part = x / width * 4
            left = int(part)
            border = edge[left] + (edge[left + 1] - edge[left]) * (part - left)
            colour = sky if y < border else hill
            fade = 1 - 0.35 * y / height
            rows += bytes(min(255, int(one * fade)) for one in colour)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
