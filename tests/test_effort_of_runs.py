"""
What a run costs, counted: requests, commits, syncs, calls, objects. Counts are the same on every machine, so they watch
in CI what `make bench` measures where it is quiet. Each bound is a little above what is needed today.
"""

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import web

from runner import cli
from runner.database import Database
from runner.events import Event, Settled
from runner.execute import execute
from runner.ledger import Taken
from runner.options import Options
from runner.states import Verdict
from runner.store import Store

RUNS = 400
IN_FLIGHT = 50

ANSWER = '{{"id": "{}", "status": "COMPLETED", "output": {{"text": "hello"}}, "delayTime": 3, "executionTime": 4}}'
LONG = '"pieces": ["{}"]'.format("x" * 20_000)
FILE = """
version: 1
name: effort
endpoints:
  bench:
    id: bench
    api_key: ${{EFFORT_KEY}}
    base_url: {url}
    concurrency: {in_flight}
    rate_limits: {{run: 1000000/1s, runsync: 1000000/1s, status: 1000000/1s}}
jobs:
  all:
    endpoint: bench
    mode: {mode}
    rows: {{repeat: {runs}}}
    input: {{prompt: "{{{{ repeat }}}}"}}
"""

COMMAND = """
import sys, runner.cli
sys.argv = ["runner", "{}", *sys.argv[1:]]
try:
    runner.cli.main()
except SystemExit:
    pass
"""


@pytest.fixture
def requests() -> Counter[str]:
    """How often each operation was asked for."""
    return Counter()


@pytest.fixture
async def url(requests: Counter[str]) -> AsyncIterator[str]:
    """A service whose jobs are over at once."""

    async def handle(request: web.Request) -> web.Response:
        operation = request.match_info["operation"]
        requests[operation] += 1
        if operation == "health":
            return web.json_response({"jobs": {}, "workers": {"idle": 1}})
        if operation == "run":
            return web.json_response({"id": f"job-{requests['run']}", "status": "IN_QUEUE"})
        return web.Response(text=ANSWER.format(f"job-{requests.total()}"), content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/v2/bench/{operation}", handle)
    app.router.add_route("*", "/v2/bench/{operation}/{job}", handle)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{server.addresses[0][1]}/v2"
    await server.cleanup()


async def carry(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, *, mode: str = "async") -> None:
    """Run the batch to its end, in this process."""
    monkeypatch.setenv("EFFORT_KEY", "key")
    file = tmp_path / "effort.yaml"
    file.write_text(FILE.format(url=url, mode=mode, runs=RUNS, in_flight=IN_FLIGHT))
    batch = await execute(Options(file, output_dir=tmp_path / "batches"))
    assert batch.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("mode", "expected"), [("async", {"run": RUNS, "status-sync": RUNS}), ("sync", {"runsync": RUNS})]
)
async def test_a_run_takes_as_few_requests_as_its_mode_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    requests: Counter[str],
    mode: str,
    expected: dict[str, int],
) -> None:
    """RunPod counts requests: a second look at a job that is over already would be one too many."""
    await carry(tmp_path, url, monkeypatch, mode=mode)
    del requests["health"]
    assert requests == expected


async def test_runs_share_their_commits_and_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A commit waits for the disk twice, so what 50 runs in flight say meanwhile goes into the next one."""
    counted: Counter[str] = Counter()
    real_do, real_sync = Database.do, os.fdatasync

    def do(self: Database, sql: str, values: Any = ()) -> int:
        counted[sql.split(" ", 1)[0]] += 1
        return real_do(self, sql, values)

    def sync(file: int) -> None:
        counted["sync"] += 1
        time.sleep(0.02)  # as a disk, also where there is none: the quicker it is, the less waits meanwhile
        real_sync(file)

    monkeypatch.setattr(Database, "do", do)
    monkeypatch.setattr(os, "fdatasync", sync)
    await carry(tmp_path, url, monkeypatch)
    writes = counted["INSERT"] + counted["UPDATE"] + counted["DELETE"]
    assert counted["COMMIT"] <= 0.3 * RUNS
    assert counted["sync"] <= 0.3 * RUNS
    assert writes <= 2.0 * RUNS  # three and more where nothing is shared; how much is, is a matter of moments


async def test_an_output_is_in_memory_once_while_its_line_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The line has it: for all that is in flight, and each of some 100 kB, a second one would be most of the memory."""
    real_write, real_sync = Store.write, os.fdatasync
    waiting: list[int] = []
    held: list[int] = []

    def write(self: Store, events: Sequence[Event]) -> dict[str, Taken]:
        lines = sum(isinstance(event, Settled) for event in events)
        if lines >= IN_FLIGHT / 5 and len(waiting) < 5:  # looking takes long
            waiting.append(lines)
            held.append(sum(type(one) is dict and "pieces" in one for one in gc.get_objects()))
        return real_write(self, events)

    def sync(file: int) -> None:
        time.sleep(0.02)
        real_sync(file)

    monkeypatch.setattr(sys.modules[__name__], "ANSWER", ANSWER.replace('"text": "hello"', LONG))
    monkeypatch.setattr(Store, "write", write)
    monkeypatch.setattr(os, "fdatasync", sync)
    await carry(tmp_path, url, monkeypatch)
    assert waiting, "no lines waited together"
    assert sum(held) < 0.75 * sum(waiting)  # what is not in a line yet: in a bad moment half as many as lines wait


async def test_a_run_takes_few_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Calls of our own functions, on whichever thread: what a run costs beside the HTTP library and SQLite."""
    package = str(Path(sys.modules["runner"].__file__ or "").parent)
    calls: Counter[str] = Counter()

    def count(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            calls[frame.f_code.co_qualname] += 1

    await carry(tmp_path, url, monkeypatch)  # what is done once is done
    sys.setprofile(count)
    try:
        await carry(tmp_path, url, monkeypatch)
    finally:
        sys.setprofile(None)
    # 276 to 293: a task that waits is called once more
    assert calls.total() / RUNS <= 300, calls.most_common(20)


async def test_a_run_leaves_little_to_the_garbage_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Cycles make for looking through all that lives: a run leaves none behind but those of the HTTP library."""
    await carry(tmp_path, url, monkeypatch)
    gc.collect()
    gc.disable()
    try:
        await carry(tmp_path, url, monkeypatch)
        left = gc.collect()
    finally:
        gc.enable()
    assert left / RUNS <= 6


@pytest.mark.parametrize(
    ("code", "most"),
    [
        pytest.param(COMMAND.format("--help"), 165, id="--help"),
        pytest.param(COMMAND.format("validate"), 360, id="validate"),
        pytest.param("import runner.commands.run, runner.conduct", 570, id="run"),
        pytest.param("import runner.commands.resume", 315, id="resume of what is done"),
    ],
)
def test_a_command_imports_no_more_than_it_needs(tmp_path: Path, code: str, most: int) -> None:
    """Imports are what starting up takes: cron and completion feel them."""
    file = tmp_path / "effort.yaml"
    file.write_text(FILE.format(url="http://127.0.0.1:9/v2", mode="async", runs=1, in_flight=1))
    tell = "\nimport sys\nprint('modules:', *sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + tell, str(file)],
        cwd=tmp_path,
        env=os.environ | {"EFFORT_KEY": "key"},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stderr.partition("modules:")[2].split())
    # What the environment has beside ours, such as aiodns with RunPod's SDK, comes and goes with it.
    assert not modules & {"aiohttp.web", "runner.local.server", "rich"}
    assert len(modules) <= most


BUILT = """
import sys, runner.__main__, runner.spec
try:
    runner.__main__.main()
except SystemExit as ended:
    assert not ended.code
print(*(one.__name__ for one in runner.spec.Spec.__subclasses__() if one.__pydantic_complete__))
print(sys.modules["aiodns"])
"""


async def test_a_batch_builds_one_model_and_no_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The model of the whole file has all others in it: each that was built by itself took up to 10 ms of the start."""
    monkeypatch.setenv("EFFORT_KEY", "key")
    file = tmp_path / "effort.yaml"
    file.write_text(FILE.format(url=url, mode="async", runs=3, in_flight=3))
    words = [sys.executable, "-c", BUILT, "run", str(file), "--quiet", "--output-dir", str(tmp_path)]
    done = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    out, _ = await done.communicate()
    assert out.decode().splitlines() == ["JobFileSpec", "None"]


async def test_a_command_has_no_parser_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer makes them all before it reads a word, eighteen of them."""
    made: list[str | None] = []
    make = typer.main.get_command_from_info

    def counted(command_info: Any, **named: Any) -> Any:
        made.append(command_info.callback.__name__)
        return make(command_info, **named)

    monkeypatch.setattr(typer.main, "get_command_from_info", counted)
    monkeypatch.setattr(sys, "argv", ["runner", "validate", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert made == ["validate"]


STARTED = """
import gc, runner.__main__
looks = gc.get_stats()[0]["collections"]
import sys, runner.commands.run, runner.conduct, runner.narrow, runner.spec
print(gc.get_stats()[0]["collections"] - looks)
print(*(one.__name__ for one in runner.spec.Spec.__subclasses__() if one.__pydantic_complete__))
late = ("junit", "page", "pipeline", "prometheus", "repeat", "report", "reports", "timings", "upstream")
print(*(name for name in late if f"runner.{name}" in sys.modules))
"""


def test_a_batch_starts_without_what_it_needs_only_later(tmp_path: Path) -> None:
    """
    No look for garbage at what stays anyway, no model built before there is a file to read, and nothing imported that
    only pipelines, repeats and the end of a batch need: together they were a fifth of the time to the first request.
    """
    done = subprocess.run([sys.executable, "-c", STARTED], cwd=tmp_path, capture_output=True, text=True, check=True)
    looks, models, late = done.stdout.splitlines()
    assert int(looks) <= 1
    assert models == ""
    assert late == ""
