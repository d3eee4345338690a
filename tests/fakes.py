"""Virtual time, and stand-ins for RunPod's client and the recorder: what tests of the engine run on."""

import asyncio
import functools
import heapq
import selectors
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, cast

import pytest

from runner.answers import Chunks, EndpointHealth, RemoteJob
from runner.attempt import Attempt
from runner.endpoint import LiveEndpoint
from runner.errors import NotFound, RecordError, RunPodError, Unsupported
from runner.events import (
    Accepted,
    CancelDecided,
    Claimed,
    Destination,
    Ended,
    Event,
    Forgotten,
    Intended,
    Planned,
    Reopened,
    Sampled,
    Settled,
    Uploaded,
    Withdrawn,
)
from runner.faults import Refusal, fault
from runner.pace import Pace
from runner.received import Received, StreamFile
from runner.record import Done, Recorder
from runner.runpod import RunPod
from runner.runs import Run
from runner.secret import Masker
from runner.stop import Switch
from runner.units import Rate
from runner.values import JsonValue, Missing, parse
from runner.work import Terms, Work

P = ParamSpec("P")

EPOCH = 1_800_000_000.0
"""What a FakeClock says when its loop begins."""

DEADLOCK_S = 30 * 86_400.0
"""Nothing that a test waits for takes so long: a loop that gets there waits for ever."""


# Loops


def leaving_no_task(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Coroutine[Any, Any, None]]:
    """*test*, failing when a task that it started is still there after it."""

    @functools.wraps(test)
    async def watched(*args: P.args, **kwargs: P.kwargs) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        for _ in range(5):  # a task that is just ending may need some turns
            await asyncio.sleep(0)
        left = sorted(task.get_name() for task in asyncio.all_tasks() - before)
        if left:
            pytest.fail(f"tasks are left over: {', '.join(left)}")

    return watched


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """*test*, run on a loop of its own whose clock jumps to the next timer whenever nothing else is to be done."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(debug=True, loop_factory=VirtualLoop) as runner:
            unheard: list[dict[str, Any]] = []
            runner.get_loop().set_exception_handler(lambda _, context: unheard.append(context))
            runner.run(leaving_no_task(test)(*args, **kwargs))
        assert not unheard, "an error that nobody waits for would only be logged"

    return run


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is a number. It starts at 1000, where a monotonic clock may well stand."""

    def __init__(self) -> None:
        self.virtual_s = 1000.0
        super().__init__(_Jumps(self))

    def time(self) -> float:
        return self.virtual_s


class _Jumps(selectors.DefaultSelector):
    """Instead of waiting for a timer it moves the loop's clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0:
            if timeout is None or self._loop.virtual_s > DEADLOCK_S:
                raise RuntimeError("everything waits for something else")
            self._loop.virtual_s += max(0.0, timeout)
        return ready


class FakeClock:
    """A `Clock` on the loop's own time. Tests may step its calendar, and say what chance draws."""

    def __init__(self, chance: float = 0.0) -> None:
        self.sleeping = 0
        self.stepped_s = 0.0
        self._chance = chance
        self._began_at = asyncio.get_running_loop().time()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the test began, to the millisecond."""
        return round(self.monotonic() - self._began_at, 3)

    def now(self) -> float:
        return EPOCH + self.stepped_s + self.monotonic() - self._began_at

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def chance(self) -> float:
        return self._chance

    async def sleep(self, delay_s: float) -> None:
        self.sleeping += 1
        try:
            await asyncio.sleep(max(0.0, delay_s))
        finally:
            self.sleeping -= 1

    async def until_sleeping(self, count: int) -> None:
        """Let everybody else go on until *count* tasks sleep; no time passes."""
        for _ in range(10_000):
            if self.sleeping >= count:
                return
            await asyncio.sleep(0)
        pytest.fail(f"{self.sleeping} tasks sleep, {count} were waited for")


# RunPod


@dataclass(frozen=True, slots=True)
class Play:
    """
    How RunPod treats one submit: the *error* it answers, if any, after *answer_s*; a job that ends after *takes_s*.

    A job whose answer is lost is made all the same where *accepted* says so. *chunks* are what it streams, each with
    the seconds after which it is there.
    """

    error: Exception | None = None
    answer_s: float = 0.0
    accepted: bool = False
    takes_s: float = 1.0
    status: str = "COMPLETED"
    output: JsonValue | Missing = "ok"
    failure: JsonValue | None = None
    execution_time_ms: int | None = None
    chunks: tuple[tuple[float, JsonValue], ...] = ()
    retries: int | None = None


@dataclass(slots=True)
class FakeJob:
    """A job as RunPod has it."""

    job_id: str
    given: JsonValue
    began_at: float
    ends_at: float
    final: RemoteJob
    chunks: list[tuple[float, JsonValue]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def seen(self, now: float) -> RemoteJob:
        """What a look at *now* shows."""
        return self.final if now >= self.ends_at else RemoteJob(self.job_id, "IN_PROGRESS")


@dataclass(frozen=True, slots=True)
class After:
    """An answer that takes *delay_s* to come."""

    delay_s: float
    answer: object


class FakeRunPod(RunPod):
    """
    A scripted client. What is not scripted goes well: a submit makes a job, a job completes, health answers.

    `will_play` says what becomes of submits, in their order; `will_say` what an operation answers: exceptions are
    raised, anything else returned, and the last one is said again. *history* tells operations and records in order.
    """

    def __init__(self, history: list[str] | None = None) -> None:  # not RunPod's: there is no session
        self.endpoint_id = "ep"
        self.history: list[str] = [] if history is None else history
        self.calls: dict[str, list[float]] = defaultdict(list)
        self.most_at_once: Counter[str] = Counter()
        self.jobs: dict[str, FakeJob] = {}
        self.asked: list[JsonValue] = []
        self.knows_status_sync = True
        self.latency_s = 0.0
        self.play: Callable[[JsonValue], Play] = lambda given: Play()
        self._plays: deque[Play] = deque()
        self._says: dict[str, deque[object]] = {}
        self._at_once: Counter[str] = Counter()

    def will_play(self, *plays: Play) -> None:
        """Treat the next submits like this."""
        self._plays.extend(plays)

    def will_say(self, operation: str, *answers: object) -> None:
        """Answer the next calls of *operation* like this; the last answer stays."""
        self._says[operation] = deque(answers)

    def will_recover(self, operation: str) -> None:
        """Answer *operation* well again."""
        del self._says[operation]

    @property
    def cancelled(self) -> list[str]:
        """The jobs that were asked to be cancelled."""
        return [words.removeprefix("cancel ") for words in self.history if words.startswith("cancel ")]

    @property
    def submitted(self) -> list[JsonValue]:
        """The inputs of the jobs that were made, in order; *asked* holds those of all submits."""
        return [job.given for job in self.jobs.values()]

    @property
    def most_in_flight(self) -> int:
        """How many jobs were unfinished at once, at most."""
        ends: list[float] = []
        most = 0
        for job in sorted(self.jobs.values(), key=lambda one: one.began_at):
            while ends and ends[0] <= job.began_at:
                heapq.heappop(ends)
            heapq.heappush(ends, job.ends_at)
            most = max(most, len(ends))
        return most

    async def run(self, body: bytes, *, timeout_s: float | None = None) -> RemoteJob:
        given = parse(body)["input"]
        self.asked.append(given)
        play = self._plays.popleft() if self._plays else self.play(given)
        return cast(RemoteJob, await self._serve("run", "run", self._submit(given, play)))

    async def _submit(self, given: JsonValue, play: Play) -> RemoteJob:
        await asyncio.sleep(play.answer_s)
        if play.error is None or play.accepted:
            job = self.add_job(f"job-{len(self.jobs) + 1}", play, given)
        if play.error is not None:
            raise play.error
        return RemoteJob(job.job_id, "IN_QUEUE")

    def add_job(self, job_id: str, play: Play, given: JsonValue = None) -> FakeJob:
        """A job that is there already; its times count from now."""
        now = asyncio.get_running_loop().time()
        final = RemoteJob(
            job_id,
            play.status,
            play.output,
            play.failure,
            execution_time_ms=play.execution_time_ms,
            worker_id="w-1",
            retries=play.retries,
        )
        chunks = [(now + at_s, chunk) for at_s, chunk in play.chunks]
        self.jobs[job_id] = FakeJob(job_id, given, now, now + play.takes_s, final, chunks)
        return self.jobs[job_id]

    async def status(self, job_id: str, *, timeout_s: float | None = None) -> RemoteJob:
        return cast(RemoteJob, await self._serve("status", f"status {job_id}", self._seen(job_id)))

    async def _seen(self, job_id: str) -> RemoteJob:
        if job_id not in self.jobs:
            raise not_found()
        return self.jobs[job_id].seen(asyncio.get_running_loop().time())

    async def status_sync(self, job_id: str, *, wait_ms: int, timeout_s: float | None = None) -> RemoteJob:
        return cast(RemoteJob, await self._serve("status-sync", f"status-sync {job_id}", self._held(job_id, wait_ms)))

    async def _held(self, job_id: str, wait_ms: int) -> RemoteJob:
        if not self.knows_status_sync:
            raise Unsupported("there is no status-sync", status=405)
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_ms / 1000
        while not (seen := await self._seen(job_id)).is_final and loop.time() < until:
            job = self.jobs[job_id]
            job.changed.clear()
            try:
                async with asyncio.timeout_at(min(until, job.ends_at)):
                    await job.changed.wait()
            except TimeoutError:
                pass
        return seen

    async def runsync(self, body: bytes, *, wait_ms: int, timeout_s: float | None = None) -> RemoteJob:
        given = parse(body)["input"]
        self.asked.append(given)
        play = self._plays.popleft() if self._plays else self.play(given)
        return cast(RemoteJob, await self._serve("runsync", "runsync", self._submit_and_hold(given, play, wait_ms)))

    async def _submit_and_hold(self, given: JsonValue, play: Play, wait_ms: int) -> RemoteJob:
        return await self._held((await self._submit(given, play)).job_id, wait_ms)

    async def stream(self, job_id: str, *, wait_ms: int | None = None, timeout_s: float | None = None) -> Chunks:
        return cast(Chunks, await self._serve("stream", f"stream {job_id}", self._drained(job_id)))

    async def _drained(self, job_id: str) -> Chunks:
        if job_id not in self.jobs:
            raise not_found()
        job, loop = self.jobs[job_id], asyncio.get_running_loop()
        next_at = min([at for at, _ in job.chunks] + [job.ends_at, loop.time() + 10.0])
        await asyncio.sleep(max(0.0, next_at - loop.time()))
        there = [chunk for at, chunk in job.chunks if at <= loop.time()]
        job.chunks = [(at, chunk) for at, chunk in job.chunks if at > loop.time()]
        return Chunks(job.seen(loop.time()).status, there)

    async def cancel(self, job_id: str, *, timeout_s: float | None = None) -> RemoteJob:
        return cast(RemoteJob, await self._serve("cancel", f"cancel {job_id}", self._cancelled(job_id)))

    async def _cancelled(self, job_id: str) -> RemoteJob:
        job = self.jobs.get(job_id)
        if job is None:
            raise not_found()
        now = asyncio.get_running_loop().time()
        if now < job.ends_at:
            job.ends_at = now
            job.final = RemoteJob(job_id, "CANCELLED", execution_time_ms=round((now - job.began_at) * 1000))
            job.changed.set()
        return job.final

    async def health(self, *, timeout_s: float | None = None) -> EndpointHealth:
        return cast(EndpointHealth, await self._serve("health", "health", self._healthy()))

    async def _healthy(self) -> EndpointHealth:
        return EndpointHealth({"inQueue": 0}, {"ready": 1})

    async def _serve(self, operation: str, words: str, otherwise: Coroutine[Any, Any, object]) -> object:
        self.history.append(words)
        self.calls[operation].append(asyncio.get_running_loop().time())
        self._at_once[operation] += 1
        self.most_at_once[operation] = max(self.most_at_once[operation], self._at_once[operation])
        try:
            await asyncio.sleep(self.latency_s)
            if operation not in self._says:
                return await otherwise
            return await self._said(operation)
        finally:
            otherwise.close()
            self._at_once[operation] -= 1

    async def _said(self, operation: str) -> object:
        answers = self._says[operation]
        answer = answers.popleft() if len(answers) > 1 else answers[0]
        if isinstance(answer, After):
            await asyncio.sleep(answer.delay_s)
            answer = answer.answer
        if isinstance(answer, Exception):
            raise answer
        return answer


def not_found() -> NotFound:
    """What RunPod says of a job that it does not know."""
    return NotFound("GET /status of endpoint 'ep': HTTP 404", status=404)


# The recorder


class MemoryRecorder(Recorder):
    """
    Keeps *events* in order. `record` takes *commit_s*; from *broken_at* events on it can't write.

    With *loses* what is recorded soon turns out not to be on disk.
    """

    def __init__(self, history: list[str] | None = None, *, commit_s: float = 0.01) -> None:  # no store, no thread
        self.events: list[Event] = []
        self.history: list[str] = [] if history is None else history
        self.broken_at: int | None = None
        self.commit_s = commit_s
        self.loses = False

    def tell(self, event: Event) -> None:
        self._take(event)
        self.history.append(words(event))

    async def record(self, event: Event) -> None:
        self._take(event)
        await asyncio.sleep(self.commit_s)
        self.history.append(words(event))

    def record_soon(self, event: Event) -> Done:
        self._take(event)
        done: Done = asyncio.get_running_loop().create_future()

        def end() -> None:
            if self.loses:
                done.set_exception(RecordError("the disk is full"))
                return
            self.history.append(words(event))
            done.set_result(None)

        asyncio.get_running_loop().call_later(self.commit_s, end)
        return done

    def _take(self, event: Event) -> None:
        if self.broken_at is not None and len(self.events) >= self.broken_at:
            raise RecordError("the disk is full")
        self.events.append(event)

    @property
    def settled(self) -> dict[str, Settled]:
        """The settled runs by key; fails when one was settled twice."""
        found: dict[str, Settled] = {}
        for event in self.events:
            if isinstance(event, Settled):
                assert event.run.key not in found, f"{event.run.key} was settled twice"
                found[event.run.key] = event
        return found


def words(event: Event) -> str:
    """*event* in a word or two."""
    match event:
        case Intended() | Withdrawn() | CancelDecided() | Claimed():
            return f"{type(event).__name__} {event.attempt}"
        case Reopened() | Forgotten():
            return f"{type(event).__name__} {event.key}"
        case Planned():
            return f"Planned {event.job}"
        case Accepted():
            return f"Accepted {event.job_id}"
        case Ended():
            return f"Ended {event.attempt} {event.ending.outcome if event.ending else None}"
        case Settled():
            return f"Settled {event.state} {event.ending.outcome if event.ending else None}"
        case Sampled():
            return f"Sampled {event.endpoint}"
        case Uploaded():
            return f"Uploaded {event.upto}"
        case _:  # what is done with the drafts of RunPod's Batch API
            return type(event).__name__


class MemoryReceived(Received):
    """Keeps chunks and unreadable answers by key and attempt."""

    def __init__(self) -> None:  # no folder
        self.chunks: dict[tuple[str, int], list[JsonValue]] = {}
        self.unreadable: dict[tuple[str, int], bytes] = {}

    def stream(self, key: str, attempt: int) -> StreamFile:
        return MemoryStreamFile(self.chunks.setdefault((key, attempt), []))

    async def keep_unreadable(self, key: str, attempt: int, body: bytes) -> str:
        self.unreadable[key, attempt] = body
        return f"unreadable/{key}.{attempt}.bin"


class MemoryStreamFile(StreamFile):
    """Keeps chunks in *chunks*."""

    def __init__(self, chunks: list[JsonValue]) -> None:  # no file
        self._chunks = chunks

    async def read(self) -> list[JsonValue]:
        return list(self._chunks)

    async def append(self, chunks: list[JsonValue]) -> int:
        self._chunks += chunks
        return sum(len(str(chunk)) for chunk in chunks)

    async def close(self) -> None:
        """Nothing to close."""

    def leave(self) -> None:
        """Nothing to close."""


# Parts


def a_run(number: int = 0, *, job: str = "photos", problem: str | None = None) -> Run:
    """The run *number* of a job."""
    return Run(job, number, f"{job}-{number}", None, None, 0, None if problem else {"n": number}, problem)


FAST = {bucket: Rate(1_000_000, 1.0) for bucket in ("run", "runsync", "status", "cancel", "purge", "health", "batch")}
"""Rates that hold nobody back."""


def an_endpoint(
    runpod: FakeRunPod,
    clock: FakeClock,
    *,
    name: str = "sdxl",
    concurrency: int = 200,
    rates: Mapping[str, Rate] | None = None,
) -> LiveEndpoint:
    """A live endpoint whose client is *runpod*."""
    to = Destination(name, "https://api.runpod.ai/v2", "ep")
    return LiveEndpoint(to, runpod, Pace(FAST | dict(rates or {})), clock, concurrency=concurrency)


class Scene:
    """One endpoint, its client, a recorder, a clock and a switch; what they did stands in `history`, in order."""

    def __init__(
        self,
        *,
        concurrency: int = 200,
        rates: Mapping[str, Rate] | None = None,
        chance: float = 0.0,
        **terms: Any,
    ) -> None:
        self.history: list[str] = []
        self.clock = FakeClock(chance)
        self.runpod = FakeRunPod(self.history)
        self.recorder = MemoryRecorder(self.history)
        self.received = MemoryReceived()
        self.endpoint = an_endpoint(self.runpod, self.clock, concurrency=concurrency, rates=rates)
        self.switch = Switch()
        self.terms = Terms(
            **{
                "policy": {},
                "execution_timeout_s": None,
                "request_timeout_s": 30.0,
                "run_timeout_s": 86_700.0,
                "paused_s": 300.0,
            }
            | terms
        )

    def attempt(self, work: Work | None = None) -> Attempt:
        """An attempt at *work*, which is a fresh run by default."""
        return Attempt(
            work or Work(a_run()),
            BODY,
            self.terms,
            self.endpoint,
            self.recorder,
            self.received,
            self.clock,
            self.switch,
        )

    def after(self, delay_s: float, act: Callable[..., object], *details: object) -> None:
        """Call *act* when *delay_s* seconds have passed."""
        asyncio.get_running_loop().call_later(delay_s, act, *details)


BODY = b'{"input":{"n":0}}'


def http(status: int, body: str = "", *, retry_after: str | None = None) -> RunPodError:
    """What the client raises when RunPod answers with *status*."""
    heard = Refusal(status, retry_after, bytearray(body.encode()))
    return fault("POST /run of endpoint 'ep'", heard, masker=Masker(), now=EPOCH)
