"""
Measure the local endpoint, with the server on one core and whoever asks it on another: ``make bench-local``.

The server is ``runner serve`` as users start it. What it costs is its own CPU time; its workers, which run on the other
core, are not part of that. Few and many queued jobs are measured on two servers in turn, and compared round by round:
whatever else the machine does slows both alike. Where much less than the whole core was used, something else was the
bottleneck: the load generator, or other programs.
"""

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import Measured, Work, load
from benchmarks.loops import new_loop
from benchmarks.processes import cores, cpu_s, descendants

FEW = 10
WORKERS = 4
LEAST_PER_SECOND = 1500
MOST_RATIO = 1.15
"""The steps are the same (`tests/local/test_effort.py`); but ten thousand jobs don't fit the processor's caches."""

TOKEN = "benchmark-0123456789"
JOB_FILE = f"""
version: 1
name: local-server
endpoints:
  queued: {{external: true}}
  worked: {{handler: "zero.py:handler", workers: {WORKERS}}}
jobs:
  any: {{endpoint: queued, input: {{n: 1}}}}
"""
HANDLER = "def handler(job):\n    return job['input']\n"


@dataclass
class Row:
    """One kind of work: what the load generator saw, and the server's CPU seconds."""

    name: str
    measured: Measured = field(default_factory=Measured)
    cpu_s: float = 0.0
    rounds_us: list[float] = field(default_factory=list)

    def add(self, measured: Measured, cpu_s: float) -> None:
        """Count one round in."""
        self.measured.add(measured)
        self.cpu_s += cpu_s
        self.rounds_us.append(cpu_s / measured.requests * 1e6)

    @property
    def per_second(self) -> float:
        """Requests that were answered in a second."""
        return self.measured.requests / self.measured.seconds

    @property
    def cpu_us(self) -> float:
        """The server's CPU time for one request, the median of the rounds."""
        return statistics.median(self.rounds_us)

    def __str__(self) -> str:
        p50, p95 = (self.measured.percentile_ms(share) for share in (0.5, 0.95))
        used = self.cpu_s / self.measured.seconds
        return f"{self.name:<31} {self.per_second:>10,.0f} {self.cpu_us:>14.0f} {used:>9.0%} {p50:>8.2f} {p95:>8.2f}"


class Server:
    """A ``runner serve`` that runs."""

    def __init__(self, process: "subprocess.Popen[str]", base_url: str) -> None:
        self.pid = process.pid
        self._base_url = base_url

    async def measure(self, row: Row, endpoint: str, work: Work, connections: int) -> None:
        """Do *work*, and count it in *row*."""
        before_s = cpu_s(self.pid)
        measured = await self.do(endpoint, work, connections)
        if measured.errors:
            raise RuntimeError(f"the server refused requests: {dict(measured.errors)}")
        row.add(measured, cpu_s(self.pid) - before_s)

    async def do(self, endpoint: str, work: Work, connections: int = 16) -> Measured:
        """Do *work*."""
        return await load(f"{self._base_url}/{endpoint}", TOKEN, work, connections=connections)


@contextlib.contextmanager
def serving(folder: Path, core: int, other_core: int | None) -> Iterator[Server]:
    """Serve the job file of *folder* on *core* while the block runs, its workers on *other_core*."""
    command = [sys.executable, "-m", "runner", "serve", "local.yaml", "--token-env", "BENCHMARK_TOKEN"]
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, "BENCHMARK_TOKEN": TOKEN}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"at (http\S+)$", process.stdout.readline().strip())
            if found is None:
                raise RuntimeError("'runner serve' did not start")
            os.sched_setaffinity(process.pid, {core})
            if other_core is not None:
                for worker in descendants(process.pid):
                    os.sched_setaffinity(worker, {other_core})
            yield Server(process, found[1])
        finally:
            process.terminate()


async def measure(
    servers: tuple[Server, Server], *, queued: int, jobs: int, rounds: int, connections: int
) -> list[Row]:
    """All rows of the table: the first server holds few queued jobs, the second *queued*."""
    few, many = (Row(f"run + status, {number:,} queued") for number in (FEW, queued))
    worked = Row(f"run + status-sync, {WORKERS} workers")
    slice_ = Work(jobs // rounds)
    in_turn = [(servers[0], few, FEW), (servers[1], many, queued)]
    for _ in range(rounds):
        in_turn.reverse()
        for server, row, size in in_turn:
            await server.do("queued", Work(1, submit="purge-queue", look=None))
            await server.do("queued", Work(size, look=None))
            await server.measure(row, "queued", slice_, connections)
    for _ in range(rounds):
        work = Work(jobs // rounds, look="status-sync", until_final=True)
        await servers[0].measure(worked, "worked", work, connections)
    return [few, many, worked]


def verdicts(few: Row, many: Row, queued: int) -> list[tuple[bool, str]]:
    """What the endpoint promises of its speed, and whether it holds here."""
    slower = min(few.per_second, many.per_second)
    alone = 1e6 / max(few.cpu_us, many.cpu_us)
    ratio = statistics.median(most / least for most, least in zip(many.rounds_us, few.rounds_us, strict=True))
    rate = (
        f"{slower:,.0f} run + status requests/s ({alone:,.0f} if nothing else took CPU), at least {LEAST_PER_SECOND:,}"
    )
    growth = f"{ratio:.2f} x the CPU a request with {queued:,} queued as with {FEW}, at most {MOST_RATIO}"
    return [(slower >= LEAST_PER_SECOND, rate), (ratio <= MOST_RATIO, growth)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and what holds; 1 if something doesn't."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local_server", description="Time the local endpoint.")
    parser.add_argument("--jobs", type=int, default=3000, help="jobs of each row (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds taken in turn (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="jobs at a time (default: %(default)s)")
    parser.add_argument("--queued", type=int, default=10_000, help="how many jobs are many (default: %(default)s)")
    given = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        parser.error("it pins processes to cores and reads their CPU time, as only Linux lets it")
    core, other_core = cores()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "local.yaml").write_text(JOB_FILE)
        (folder / "zero.py").write_text(HANDLER)
        servers = tuple(stack.enter_context(serving(folder, core, other_core)) for _ in range(2))
        if other_core is None:
            print("this machine has one core: the load generator takes its share of it", file=sys.stderr)
        else:
            os.sched_setaffinity(0, {other_core})
        with asyncio.Runner(loop_factory=new_loop) as runner:
            rows = runner.run(
                measure(
                    (servers[0], servers[1]),
                    queued=given.queued,
                    jobs=given.jobs,
                    rounds=given.rounds,
                    connections=given.connections,
                )
            )
    print(f"{'':<31} {'requests/s':>10} {'CPU µs/request':>14} {'core used':>9} {'p50 ms':>8} {'p95 ms':>8}")
    print(*rows, sep="\n")
    found = verdicts(rows[0], rows[1], given.queued)
    for holds, text in found:
        print(f"{'holds' if holds else 'FAILS'}: {text}")
    return 0 if all(holds for holds, _ in found) else 1


if __name__ == "__main__":
    sys.exit(main())
