"""Bad days that people have with their endpoints: each is named, live and in the report, with the setting to change."""

import html
import io
import json
import re
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from terminal import Server, finish, lines, runner, serving, start, wait_until

from runner.commands.status import status
from runner.values import JsonObject

HANDLER = """
import pathlib, time

def handler(job):
    while not pathlib.Path(job["input"]["until"]).exists():
        time.sleep(0.02)
    return {"seen": True}
"""

NOBODY = {"external": True}
LOGS = "see their logs in RunPod's console, then the endpoint's container image, start command and env variables"
STALLED = "see the workers' logs in RunPod's console, then the endpoint's start command and container image"
COLD = "to start less often, turn FlashBoot on, or raise the idle timeout or active workers"
SCARCE = "allow more GPU types or data centers"
NONE = f"set max workers above 0, and where it is, {SCARCE}"
FULL = "to be done sooner, raise max workers"


@dataclass(frozen=True)
class Day:
    """
    A bad day: what is wrong with the endpoint, how that is told while five runs wait, and how when it is over.

    Most days nothing would end, so the batch is cancelled; on one that *passes* the handlers are let go.
    """

    faults: Sequence[str]
    live: str
    after: str
    endpoint: JsonObject | None = None
    workers: int = 1
    passes: bool = False


DAYS = {
    "paused": Day(
        ["paused"],
        "paused: it answers 409, for it allows no workers, since TIME UTC; set its max workers above 0",
        "paused: it answers 409, for it allows no workers, since TIME UTC; set its max workers above 0",
    ),
    "no workers": Day(
        [],
        f"no workers: not one worker, 5 jobs waiting, since TIME UTC; {NONE}",
        f"was no workers: not one worker, 5 jobs waiting, in N of M looks, from TIME to TIME UTC; {NONE}",
        NOBODY,
    ),
    "throttled": Day(
        ["throttled=2"],
        f"throttled: 2 of 2 workers without a free GPU, 5 jobs waiting, since TIME UTC; {SCARCE}",
        "was throttled: 2 of 2 workers without a free GPU, 5 jobs waiting,"
        f" in N of M looks, from TIME to TIME UTC; {SCARCE}",
        NOBODY,
    ),
    "crash-looping": Day(
        ["unhealthy=2"],
        f"crash-looping: 2 of 4 workers unhealthy, 2 up, 3 jobs waiting, since TIME UTC; {LOGS}",
        f"crash-looping: 2 of 4 workers unhealthy, 2 up, since TIME UTC; {LOGS}",
        workers=2,
        passes=True,
    ),
    "cold start": Day(
        ["cold_start=5m"],
        f"cold start: 2 of 2 workers starting, 5 jobs waiting, since TIME UTC; {COLD}",
        f"was cold start: 2 of 2 workers starting, 5 jobs waiting, in N of M looks, from TIME to TIME UTC; {COLD}",
        workers=2,
    ),
    "saturated": Day(
        [],
        f"saturated: 1 worker busy, 4 jobs waiting, since TIME UTC; {FULL}",
        f"was saturated: 1 worker busy, 4 jobs waiting, in N of M looks, from TIME to TIME UTC; {FULL}",
        passes=True,
    ),
    "stalled": Day(
        ["stalled=1"],
        f"stalled: 1 worker up that took none, 5 jobs waiting, since TIME UTC; {STALLED}",
        f"was stalled: 1 worker up that took none, 5 jobs waiting, in N of M looks, from TIME to TIME UTC; {STALLED}",
        NOBODY,
    ),
}


def write(folder: Path, day: Day) -> Path:
    """A job file of five runs at that day's endpoint."""
    (folder / "held.py").write_text(HANDLER)
    endpoint = day.endpoint or {"handler": "held.py:handler", "workers": day.workers}
    path = folder / "held.yaml"
    whole = {
        "version": 1,
        "name": "held",
        "endpoints": {"sdxl": endpoint},
        "jobs": {
            "photos": {"endpoint": "sdxl", "rows": {"repeat": 5}, "concurrency": 5, "input": {"until": f"{folder}/go"}}
        },
        "health": {"every": "1s"},
    }
    path.write_text(json.dumps(whole))
    return path


def timeless(said: str) -> str:
    """*said* without what is different each time."""
    return re.sub(r"in \d+ of \d+ looks", "in N of M looks", re.sub(r"\d\d:\d\d:\d\d", "TIME", said))


def live(folder: Path) -> JsonObject:
    """What ``runner status`` says of the endpoint; nothing while there is no batch."""
    if not (folder / "batches/held/latest/ledger.sqlite").exists():
        return {}
    out = io.StringIO()
    status(str(folder / "batches/held/latest"), output_dir=None, as_json=True, out=out)
    told: JsonObject = json.loads(out.getvalue())["endpoints"]["sdxl"]
    return told


def shown(folder: Path) -> str:
    """The text of report.html, each element's in a line."""
    page = (folder / "batches/held/latest/report.html").read_text()
    return html.unescape(re.sub(r"(\s*<[^>]+>\s*)+", "\n", page))


@pytest.mark.parametrize("name", DAYS)
def test_a_bad_day_is_named_with_the_setting_to_change(tmp_path: Path, name: str) -> None:
    """Nobody should have to open RunPod's console to know why the queue is stuck; nor to come before it is over."""
    day = DAYS[name]
    path = write(tmp_path, day)
    with serving(path, faults=day.faults) as server:
        process = start("run", path, "--local", server.url, cwd=tmp_path, env=server.env)
        try:
            patiently(lambda: timeless(live(tmp_path).get("diagnosis", "")) == day.live, day.live)
            end(tmp_path, day, server)
        except AssertionError as error:
            process.kill()
            raise AssertionError(f"{finish(process)}\n{live(tmp_path)}") from error
        ran = finish(process)
    assert ran.code == (0 if day.passes else 1), ran.err
    told = json.loads((tmp_path / "batches/held/latest/health.json").read_text())["endpoints"]["sdxl"]
    # A machine that is busy with other tests may not get the look after the end in time: then it is told as it was.
    was_seen_well = told["evidence"]["condition"] == "idle" or day.after.startswith(name)
    assert timeless(told["diagnosis"]) == (day.after if was_seen_well else day.live)
    assert told["evidence"]["conditions"][name]["looks"] >= 2
    word, seen, fix = re.fullmatch(r"([^:]*): (.*); ([^;]*)", told["diagnosis"]).groups()  # type: ignore[union-attr]
    assert f"\n{word}\n{seen}\nTo do:\n{fix}\n" in shown(tmp_path)
    logged = [one for one in lines(tmp_path / "batches/held/latest/log.jsonl") if one["logger"] == "runner.sample"]
    told_gravely = [one["message"] for one in logged if one["level"] == "warning"]
    grave = [one.partition(":")[0] for one in told_gravely if not one.startswith("health can't be read")]
    assert grave == ([name] if name not in ("cold start", "saturated") else [])


def patiently(true: Callable[[], bool], what: str) -> None:
    """Look until *true*, for long: two looks at an endpoint, a server and its workers have to come before."""
    for left in range(2, -1, -1):
        with suppress(AssertionError) if left else nullcontext():
            wait_until(true, what)
            return


def end(folder: Path, day: Day, server: Server) -> None:
    """Let the batch come to its end."""
    if day.passes:
        (folder / "go").touch()
    else:
        ran = runner("cancel", folder / "batches/held/latest", cwd=folder, env=server.env)
        assert ran.code == 0, ran.err


def test_a_look_that_can_t_tell_is_followed_by_another(tmp_path: Path) -> None:
    """An endpoint that scales up has no worker for a moment, and one without workers has none for ever."""
    path = write(tmp_path, DAYS["no workers"])
    with serving(path) as server:
        submit = urllib.request.Request(
            f"{server.url}/sdxl/run",
            data=b'{"input": {"until": "never"}}',
            headers={"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(submit) as answer:
            assert answer.status == 200
        ran = runner("health", path, "--local", server.url, cwd=tmp_path, env=server.env)
    assert (ran.code, timeless(ran.out)) == (
        0,
        f"sdxl: no workers: not one worker, 1 job waiting, since TIME UTC; {NONE}\n"
        "  jobs    completed 0  failed 0  inProgress 0  inQueue 1  retried 0\n"
        "  workers idle 0  initializing 0  ready 0  running 0  throttled 0  unhealthy 0\n",
    )


@pytest.mark.parametrize(
    ("name", "health", "said"),
    [
        (
            "throttled",
            {"every": "1s", "wait": "1s", "require": {"workers_ready": 1}},
            "error: endpoint 'sdxl' has 0 of 1 worker ready after 1s: throttled: 2 of 2 workers without a free GPU\n"
            f"  help: {SCARCE}\n",
        ),
        (
            "no workers",
            {"every": "1s", "wait": "0s", "require": {"workers_ready": 2}},
            "error: endpoint 'sdxl' has 0 of 2 workers ready\n"
            "  help: raise its active (min) workers, or lower health.require.workers_ready\n",
        ),
    ],
)
def test_an_endpoint_that_is_not_ready_is_refused_with_the_reason(
    tmp_path: Path, name: str, health: JsonObject, said: str
) -> None:
    """Nothing was sent, nothing is paid for, and cron sees exit 4."""
    path = write(tmp_path, DAYS[name])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"health": health}))
    with serving(path, faults=DAYS[name].faults) as server:
        ran = runner("run", path, "--quiet", "--local", server.url, cwd=tmp_path, env=server.env)
        assert server.submits() == {}
    assert ran.code == 4
    assert said in ran.err
