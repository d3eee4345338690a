"""
A million rows from a file, planned and settled, with a stub below the client: ``python -m benchmarks.million``.

What is measured is ours alone: reading, rendering, keys, ledger, results. No network and no server takes part, so every
job is done as soon as it is submitted. Prints rows, seconds, CPU and the peak of memory; exits 1 above the bound.
"""

import argparse
import asyncio
import itertools
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp

import runner
from runner import exchange

MOST_MB = 120
"""The bound on the peak of memory."""

JOB_FILE = """\
version: 1
name: million
endpoints:
  stub:
    id: stub
    base_url: "https://127.0.0.1:9/v2"
    concurrency: 200
    rate_limits: {run: 1000000/10s, status: 1000000/10s}
jobs:
  all:
    endpoint: stub
    rows: {file: rows.jsonl}
    input: {prompt: "{{ row.prompt }}, photorealistic", seed: "{{ row.seed }}"}
"""


class Answered(exchange.Exchange):
    """A request that is answered at once, without anybody who hears it."""

    __slots__ = ("_body",)
    _numbers = itertools.count()

    def __init__(self, method: str, url: str) -> None:
        path = url.partition("/v2/stub/")[2]
        if path == "run":
            self._body = b'{"id": "%d-u1", "status": "IN_QUEUE"}' % next(self._numbers)
        elif path == "health":
            self._body = (
                b'{"jobs": {"inQueue": 0, "inProgress": 0}, "workers": {"idle": 1, "ready": 1, "running": 100}}'
            )
        else:
            job = path.rpartition("/")[2].partition("?")[0].encode()
            self._body = (
                b'{"id": "%s", "status": "COMPLETED", "delayTime": 1, "executionTime": 2, "output": {"ok": true}}' % job
            )
        self.status, self.headers = 200, {"Content-Length": str(len(self._body))}

    def whole(self) -> bytes:
        """The body of the answer."""
        return self._body

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        return


def request(
    _session: exchange.Session,
    method: str,
    url: str,
    *,
    data: bytes | None,
    headers: Mapping[str, str],
    timeout: aiohttp.ClientTimeout,
) -> Answered:
    """Stands in for `exchange.Session.request`."""
    return Answered(method, url)


def main() -> int:
    """Run it; 0 when the memory stayed under the bound and every run succeeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    exchange.Session.request = request  # type: ignore[method-assign,assignment]
    os.environ["RUNPOD_API_KEY"] = "key"
    with tempfile.TemporaryDirectory(prefix="million-") as folder:
        path = Path(folder, "million.yaml")
        path.write_text(JOB_FILE)
        with Path(folder, "rows.jsonl").open("w") as file:
            file.writelines(f'{{"prompt": "a horse, number {n}", "seed": {n}}}\n' for n in range(rows))
        began = time.monotonic()
        ended: Any = asyncio.run(runner.run(path, output_dir=Path(folder, "batches")))
        took_s = time.monotonic() - began
        jobs = ended.health["jobs"]["all"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak_mb, cpu_s = used.ru_maxrss * 1024 / 1e6, used.ru_utime + used.ru_stime
    print(
        f"{jobs['succeeded']:,} of {rows:,} succeeded in {took_s:.0f} s, {cpu_s / rows * 1e6:.0f} µs CPU a run, "
        f"peak {peak_mb:.0f} MB (bound {MOST_MB})"
    )
    return 0 if jobs["succeeded"] == rows and peak_mb < MOST_MB else 1


if __name__ == "__main__":
    sys.exit(main())
