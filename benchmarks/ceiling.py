"""How many requests the fast fake of RunPod's API can answer: ``python -m benchmarks.ceiling``."""

import asyncio
import os

from benchmarks.load import Work, load
from benchmarks.loops import new_loop
from benchmarks.options import Options
from benchmarks.processes import cores, cpu_s
from benchmarks.service import serving


def ceiling(work: Work, options: Options | None = None) -> tuple[float, float]:
    """Requests a second that were answered, and what each cost the server, in µs of CPU."""
    server_core, our_core = cores()
    before = os.sched_getaffinity(0)
    with serving(options or Options(), cpu=server_core) as server:
        if our_core is not None:
            os.sched_setaffinity(0, {our_core})
        try:
            before_s = cpu_s(server.pid)
            with asyncio.Runner(loop_factory=new_loop) as runner:
                measured = runner.run(load(server.url, "any", work, connections=32))
            spent_s = cpu_s(server.pid) - before_s
        finally:
            os.sched_setaffinity(0, before)
    return measured.requests / measured.seconds, spent_s / measured.requests * 1e6


def main() -> None:
    """Print the ceiling of each way to ask."""
    print("work                     requests/s    CPU µs/request")
    for name, work in (
        ("run + status", Work(40_000)),
        ("run + status-sync", Work(40_000, look="status-sync", until_final=True)),
        ("runsync", Work(80_000, submit="runsync", look=None)),
    ):
        rate, cost_us = ceiling(work)
        print(f"{name:<22} {rate:>12,.0f} {cost_us:>17.1f}")


if __name__ == "__main__":
    main()
