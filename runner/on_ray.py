"""
Run the shards of a batch as tasks of a Ray cluster: Ray places them, and starts those again whose node has died.

Each task runs one shard in its worker's process. A shard that is started again goes on from its folder, so that must be
where every node sees it: on a disk that they share, where the kernel frees the lock of a worker that died, or elsewhere
(`remote/`), where it takes over from that worker. Nothing else is shared: a small actor beside the driver takes the
shards' counts, and tells them when somebody wishes an end. Alone imports ray.
"""

import asyncio
import os
import platform
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from runner.errors import EXIT_FAIL, EXIT_INVALID, BatchBusy, RunnerError, UsageError
from runner.execute import execute
from runner.options import Options
from runner.progress import say
from runner.shards import Shard
from runner.states import State

if TYPE_CHECKING:
    from runner.live import Live

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, which lives as long as we do."""

RESTARTS = 20
"""A shard is started again so often after its worker or node died: one that kills every worker must come to an end."""

TELL_S = 1.0
"""How often a shard tells its counts, and asks for wishes."""

LOOK_S = 0.5
"""How often the driver looks who has come to an end."""

SAY_S = 10.0
"""How often the driver says how far all are."""

BUSY_S = 120.0
"""A worker that lost its node ends a moment later: so long a shard waits for the lock that it still holds."""

SECOND_S = 1.0
"""As for a batch on one machine: a second Ctrl-C within this time is the same wish as the first."""

GO_ON, DRAIN, CANCEL = 0, 1, 2
"""What may be wished of all shards. A higher wish holds for good."""


@dataclass(frozen=True, slots=True)
class End:
    """How a shard's task came to its end: the exit code, None where it was not even started; *said* is an error."""

    shard: Shard
    code: int | None
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """
    A file that the driver wrote, and its text. A node that does not see it has another disk: a shard that died there
    would begin anew elsewhere, and what it had sent would be paid for twice.
    """

    path: Path
    text: str

    def write(self) -> None:
        """Write the file, into a folder that is there."""
        self.path.write_text(self.text)

    def is_seen(self) -> bool:
        """Whether this machine sees it."""
        try:
            return self.path.read_text() == self.text
        except OSError:
            return False


@dataclass(slots=True)
class Board:
    """What the shards told last, and what is wished of them. An actor of Ray has it, beside the driver."""

    wish: int = GO_ON
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def tell(self, shard: str, counts: dict[str, int] | None) -> int:
        """Take the *counts* of a shard, None as it begins; what is wished of it."""
        self.counts[shard] = counts or {}
        return self.wish

    def has_begun(self, shard: str) -> bool:
        """Whether an earlier task has begun *shard*: Ray has seen it die, or no longer reaches its node."""
        return shard in self.counts

    def read(self) -> dict[str, dict[str, int]]:
        """What each shard that has begun told last."""
        return self.counts

    def set(self, wish: int) -> None:
        """Wish something of all shards, also of those that have not begun."""
        self.wish = max(self.wish, wish)


async def run(options: Options, mark: Mark | None, *, address: str, of: int, quiet: bool, err: TextIO) -> list[End]:
    """
    Run all *of* shards of the batch that *options* name, and say on *err* how far they are; how each ended.

    Args:
        options: What to run, with a batch id and no shard. Paths in it must mean the same on every node.
        mark: Is in the batch's folder, for nodes to see; None where the folder is elsewhere, and seen by all alike.
        address: Of a running cluster, or `LOCAL`.

    Raises:
        UsageError: no cluster answers there.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
    try:
        if address == LOCAL:
            cpus = max(of, os.cpu_count() or 1)  # a shard mostly waits, and all have to run at once to use their parts
            ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **quietly)
        else:
            ray.init(address=address, **quietly)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address!r}: {str(error).splitlines()[0]}",
            fix="start one with 'ray start --head', or write --ray local",
        ) from None
    try:
        return await _drive(options, mark, of, quiet, err)
    finally:
        ray.shutdown()


async def _drive(options: Options, mark: Mark | None, of: int, quiet: bool, err: TextIO) -> list[End]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    resources: Callable[[], dict[str, float]] = ray.cluster_resources
    room = int(resources().get("CPU", 0))
    if not quiet and room < of:
        say(f"note: the cluster has {room} CPUs, so {room} of {of} shards run at a time, each with its part", err)
    task = ray.remote(_shard).options(num_cpus=1, max_retries=RESTARTS, scheduling_strategy="SPREAD")
    env = environment(options)
    waiting = {
        asyncio.ensure_future(_ended(task.remote(replace(options, shard=shard), env, mark, board), shard))
        for shard in (Shard(number, of) for number in range(1, of + 1))
    }
    ends: list[End] = []
    loop = asyncio.get_running_loop()
    said_at = loop.time()
    async with _signals(board, err):
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                end = one.result()
                ends.append(end)
                if end.said is not None:
                    say(f"shard {end.shard}: {end.said}", err)
            if not quiet and loop.time() - said_at >= SAY_S:
                said_at = loop.time()
                say(progress(await board.read.remote(), of, len(ends)), err)
    return sorted(ends, key=lambda end: end.shard.number)


def progress(told: Mapping[str, Mapping[str, int]], of: int, ended: int) -> str:
    """How far all shards are, in a line: *told* is what those that have begun told last."""
    counts: Counter[str] = Counter()
    for one in told.values():
        counts.update(one)
    text = f"{ended} of {of} shards ended, {max(0, len(told) - ended)} running: {counts['settled']} runs settled"
    if len(told) == of:
        text += f" of {counts['planned']}"
    return f"{text}, {counts['failed']} failed, {counts['in_flight']} in flight"


async def _ended(ref: Any, shard: Shard) -> End:
    """How the task at *ref* ended. One that Ray has given up is a shard to go on with, and ends no other."""
    from ray.exceptions import RayError

    try:
        found: End = await ref
    except RayError as error:
        return End(shard, EXIT_FAIL, f"given up by Ray: {str(error).strip().splitlines()[0]}")
    return found


@asynccontextmanager
async def _signals(board: Any, err: TextIO) -> AsyncIterator[None]:
    """Let signals say what they say to a batch on one machine, to all shards."""
    loop = asyncio.get_running_loop()
    wished, at_s = GO_ON, 0.0

    def take(number: signal.Signals) -> None:
        nonlocal wished, at_s
        if wished and (number is not signal.SIGINT or loop.time() - at_s < SECOND_S):
            return
        at_s = loop.time()
        if wished == CANCEL:
            say("leaving at once; 'runner resume' goes on from the ledgers", err)
            os._exit(130)
        wished += 1
        board.set.remote(wished)
        if wished == DRAIN:
            say(f"{number.name}: starting nothing more on any shard; what is in flight is followed for a while", err)
        else:
            say("cancelling at RunPod what is in flight on any shard", err)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, take, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def environment(options: Options) -> dict[str, str]:
    """
    The variables that the job file speaks of, as they are here, for nodes that don't have them. They are an argument of
    the tasks, not a part of Ray's runtime environment, which its dashboard and its logs show.
    """
    from runner.variables import names

    text = options.file.read_text(encoding="utf-8")
    wanted = {*names(text), "RUNPOD_API_KEY", options.token_env}
    return {name: os.environ[name] for name in wanted if name in os.environ}


def _shard(options: Options, env: Mapping[str, str], mark: Mark | None, board: Any) -> End:
    """Run one shard to its end: in a worker of Ray."""
    assert options.shard is not None
    if mark is not None and not mark.is_seen():
        said = f"node {platform.node()} does not see {mark.path.parent}, so a shard that dies there could not go on"
        return End(options.shard, EXIT_INVALID, f"{said}; name a folder that all nodes share with --output-dir")
    for name, value in env.items():
        os.environ.setdefault(name, value)
    return asyncio.run(_run(options, board))


async def _run(options: Options, board: Any) -> End:
    assert options.shard is not None
    shard = options.shard
    # Who was cut off from the driver may still live. In a remote folder its next intent can't be saved once ours is,
    # whatever it does: so nothing is paid for twice, and nobody has to wait for its lease.
    is_again = await board.has_begun.remote(str(shard))
    if await board.tell.remote(str(shard), None):
        return End(shard, None)
    telling: list[asyncio.Task[None]] = []

    def watch(live: "Live") -> None:
        telling.append(asyncio.create_task(_tell(live, shard, board, options.drain_s), name="tell"))

    loop = asyncio.get_running_loop()
    give_up = loop.time() + BUSY_S
    try:
        while True:
            try:
                return End(
                    shard,
                    (await execute(replace(options, take_over=options.take_over or is_again), watch=watch)).exit_code,
                )
            except BatchBusy as busy:
                if telling or loop.time() > give_up:  # one that is taken over is the other's, and not taken back
                    return End(shard, busy.exit_code, busy.message)
                await asyncio.sleep(LOOK_S)
    except RunnerError as error:
        return End(shard, error.exit_code, error.render())
    finally:
        for one in telling:
            one.cancel()


async def _tell(live: "Live", shard: Shard, board: Any, drain_s: float) -> None:
    """Tell the *board* now and then how far *live* is, and do as is wished there; without a driver, drain."""
    from ray.exceptions import RayError

    done = GO_ON
    while True:
        tally = live.tally
        counts = {
            "planned": tally.planned,
            "settled": tally.settled,
            "failed": tally.total(State.FAILED),
            "in_flight": tally.in_flight,
        }
        try:
            wish = await board.tell.remote(str(shard), counts)
        except RayError:  # nobody waits for us any more: what is left is for a resume
            live.drain(drain_s)
            return
        if wish > done:
            done = wish
            live.drain(drain_s) if wish == DRAIN else live.cancel()
        await asyncio.sleep(TELL_S)
