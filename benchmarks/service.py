"""
Start the fast fake of RunPod's API, for timing clients, and hear afterwards what it saw.

    from benchmarks.options import BAD_DAY, DOCUMENTED_LIMITS, Options
    from benchmarks.durations import bimodal, exponential, fixed, lognormal
    from benchmarks.service import serving

    with serving(Options(workers=50, durations=lognormal(2.0)), cpu=0) as server:
        ...                        # point a client at server.url, with any key: {url}/run, {url}/status/ID, ...
        report = server.report()   # as often as you like: a `benchmarks.report.Report`

It serves run, runsync, status, status-sync, stream, cancel and health, for any endpoint id, and takes any key. Give
inputs like ``{"key": 17, ...}``: ``report.accepted`` then counts the jobs by ``"17"``, and each output is an object
with that text as ``key``. Other inputs are known by a digest. One server is for one batch of one client: start another
one for the next, which takes a fifth of a second. It uses uvloop when that is installed.

What a report has: ``requests``, ``refused`` (429s by the limits), ``faults``, ``cpu_s``, ``jobs`` (accepted, started,
ended, told), and, worked out of these, ``requests_per_job``, ``detections_s``, ``duplicates``, ``makespan_s``,
``ideal_makespan_s`` and ``limit_bound_makespan_s``.
"""

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.options import Options
from benchmarks.report import Report

ROOT = Path(__file__).resolve().parent.parent
ENDPOINT = "bench"


@dataclass(frozen=True)
class Service:
    """A server that runs: *base_url* is for clients that add the endpoint id themselves, *url* has it."""

    base_url: str
    pid: int

    @property
    def url(self) -> str:
        """Where the operations are: ``{url}/run`` and so on."""
        return f"{self.base_url}/{ENDPOINT}"

    def report(self) -> Report:
        """What the server saw until now."""
        with urllib.request.urlopen(f"{self.base_url}/_report", timeout=60) as answer:
            return Report.from_json(json.load(answer))


@contextlib.contextmanager
def serving(options: Options, *, cpu: int | None = None) -> Iterator[Service]:
    """
    Serve while the block runs, in a process of its own, on core *cpu* alone (None for any).

    Raises:
        RuntimeError: the server did not start, or was gone before the block ended.
    """
    command = [sys.executable, "-m", "benchmarks.fast_server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # It ends when its input does, so it never outlives us.
        process.stdin.write(json.dumps({"options": options.to_json(), "cpu": cpu}).encode() + b"\n")
        process.stdin.flush()
        port = process.stdout.readline()
        if not port:
            raise RuntimeError("the benchmark's server did not start")
        yield Service(f"http://127.0.0.1:{int(port)}/v2", process.pid)
        if process.poll() is not None:
            raise RuntimeError(f"the benchmark's server ended early, with exit code {process.returncode}")
