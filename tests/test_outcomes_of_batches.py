"""
What outcomes do to the rest of a batch, in every mode: artifacts, retries, time limits, stops, refusals, resumes.

As in `test_outcomes`, each test runs one batch with a job for each mode against a scripted RunPod.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fake_http import Reply
from result_lines import MODES, SKIPPED, Line, all_lines_of, completed, failed, jobs, lines_of, operation
from scripted import (
    HTML,
    KEY,
    SILENT,
    Script,
    ScriptedRunPod,
    carry,
    chunks,
    in_memory,
    job,
    says,
    under_way,
    write_job_file,
)

from runner.ledger import Ledger
from runner.values import JsonObject, JsonValue


@pytest.fixture(autouse=True)
async def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and whole batches in a twentieth of a second each."""
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    # Debug mode takes down a stack for every callback: half of the time. The parts are tested in it.
    asyncio.get_running_loop().set_debug(False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is written quickly."""
    with in_memory(tmp_path) as path:
        yield path


def endings(*finals: JsonObject, first: int = 1) -> dict[str, Script]:
    """For each mode, the endpoint whose jobs end with *finals*, in the order of their submits."""
    looks: Script = {f"status/job-{first + number}": says(final) for number, final in enumerate(finals)}
    return {
        "async": looks,
        "sync": {"runsync": [says(final) for final in finals]},
        "stream": {"stream": chunks("COMPLETED"), **looks},
    }


def submits(reply: Reply, **more: Any) -> Script:
    """An endpoint that answers submits with *reply*."""
    return {"run": reply, "runsync": reply, **more}


# Artifacts


DOT = base64.b64encode(b"\x89PNG").decode()


async def test_artifacts_are_made_and_stand_in_the_output_as_references(folder: Path) -> None:
    """Megabytes of base64 in every line would make results unreadable."""
    output = {"image": DOT, "uri": "data:text/plain,hi", "label": "a dot", "boxes": [[1, 2]], "seed": 7}
    made = {"image": ("base64", b"\x89PNG"), "uri": ("data_uri", b"hi"), "label": ("text", b"a dot")}
    artifacts = {
        mode: {
            "mode": mode,
            "artifacts": [
                *[{"path": f"{mode}/{name}", kind: f"{{{{ output.{name} }}}}"} for name, (kind, _) in made.items()],
                {"path": f"{mode}/boxes.json", "json": {"of": "{{ output.boxes }}"}},
            ],
        }
        for mode in MODES
    }
    async with ScriptedRunPod(endings(job("COMPLETED", output=output))) as server:
        carried = await carry(write_job_file(folder, server, artifacts))
    for mode, found in lines_of(carried).items():
        assert (found.outcome, found.output["seed"], found.output["boxes"]) == ("completed", 7, [[1, 2]])
        assert found.artifacts == tuple(f"artifacts/{mode}/{name}" for name in [*made, "boxes.json"])
        assert [found.output[name]["file"] for name in made] == [f"artifacts/{mode}/{name}" for name in made]
        contents = [(carried.batch.folder.path / path).read_bytes() for path in found.artifacts]
        assert contents == [*[content for _, content in made.values()], b'{"of":[[1,2]]}\n']
    assert carried.batch.exit_code == 0


@dataclass(frozen=True)
class Refused:
    """
    An artifact that can't be made: the *output* of a run with the rows' last *path*, and what its line says of it.

    *paths* are those of the runs, of which only the last one fails; *more* are artifacts beside. MODE stands for the
    job's mode.
    """

    message: str
    output: JsonValue = field(default_factory=lambda: {"image": DOT})
    paths: Sequence[str] = ("MODE/x.png",)
    more: Sequence[Mapping[str, str]] = ()
    template: str = "{{ output.image }}"


TAKEN = "artifacts/MODE/x.png is an artifact of run 0 of job 'MODE' already"

REFUSED = [
    pytest.param(Refused("this is not base64: character '!' at 4", {"image": "abc!"}), id="text that is not base64"),
    pytest.param(
        Refused("this is not base64: 5 characters, not whole groups", {"image": "abcde"}), id="base64 that is cut"
    ),
    pytest.param(Refused("expected a text in base64, found 7", {"image": 7}), id="a number for base64"),
    pytest.param(Refused("artifacts.0.base64: ", {"picture": DOT}), id="an output without it"),
    pytest.param(
        Refused(
            "artifacts.0.path: an artifact's path can't leave its folder: '..' leads out of it: 'MODE/../../x'",
            paths=["MODE/../../x"],
        ),
        id="a path that leaves the folder",
    ),
    pytest.param(
        Refused("artifacts.0.path: an artifact's path is relative: '/tmp/x.png'", paths=["/tmp/x.png"]),
        id="a path from the root",
    ),
    pytest.param(
        Refused(TAKEN, paths=["MODE/x.png", "MODE/x.png"]),
        id="another run's path",
    ),
    pytest.param(
        Refused(TAKEN, paths=["MODE/x.png", "MODE/X.PNG"]),
        id="another run's path in capitals",
    ),
    pytest.param(
        Refused("'artifacts/MODE/x' can't be a file: is a directory", paths=["MODE/x/y.png", "MODE/x"]),
        id="a path that is a folder",
    ),
    pytest.param(
        Refused("'artifacts/MODE/x/y.png' can't be a file: ", paths=["MODE/x", "MODE/x/y.png"]),
        id="a path through a file",
    ),
    pytest.param(
        Refused("an artifact of 1.5 KiB, and 1000 B is the most", {"image": base64.b64encode(bytes(1500)).decode()}),
        id="more than may be",
    ),
    pytest.param(
        Refused(
            "two artifacts of this run would have the path 'artifacts/MODE/x.png'",
            more=[{"path": "MODE/x.png", "text": "x"}],
        ),
        id="one path twice",
    ),
    pytest.param(
        Refused("expected a text, found 3", more=[{"path": "MODE/y.txt", "text": "{{ 3 }}"}]),
        id="the second of two, so that neither is there",
    ),
]


@pytest.mark.parametrize("refused", REFUSED)
async def test_an_artifact_that_can_not_be_made_leaves_the_output_and_nothing_else(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the job made is paid for; a hostile or clumsy output writes nowhere else, and half a file is none."""
    monkeypatch.setattr("runner.artifacts.MOST_BYTES", 1000)

    def of(mode: str, text: str) -> str:
        return text.replace("MODE", mode)

    last = len(refused.paths)
    finals = [job("COMPLETED", n, output={"image": DOT}) for n in range(1, last)]
    finals.append(job("COMPLETED", last, output=refused.output))
    keys = {
        mode: {
            "mode": mode,
            "concurrency": 1,
            "rows": {"inline": [{"path": of(mode, path)} for path in refused.paths]},
            "retry": {"attempts": 3},
            "artifacts": [
                {"path": "{{ row.path }}", "base64": refused.template},
                *[{"path": of(mode, one["path"]), "text": one["text"]} for one in refused.more],
            ],
        }
        for mode in MODES
    }
    async with ScriptedRunPod(endings(*finals)) as server:
        carried = await carry(write_job_file(folder, server, keys))
        assert [server.count(operation(mode), mode) for mode in MODES] == [last] * 3
    for mode, found in all_lines_of(carried).items():
        assert [line.outcome for line in found] == ["completed"] * (last - 1) + ["artifact_failed"]
        message = found[-1].message
        assert message is not None
        assert message.startswith(of(mode, refused.message))
        assert found[-1] == failed(
            "artifact_failed", message, status="COMPLETED", output=refused.output, job_id=f"job-{last}"
        )
    made = {line["artifacts"][0] for runs in carried.runs.values() for line in runs if line["artifacts"]}
    root = carried.batch.folder.path
    assert {str(path.relative_to(root)) for path in (root / "artifacts").rglob("*") if path.is_file()} == made
    assert sorted(path.name for path in folder.iterdir()) == ["batches", "job.yaml"]


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [("http", "only https is fetched"), ("https", "its host is not on the public internet")],
    ids=["by http", "by https"],
)
async def test_an_artifact_url_that_leads_to_this_machine_is_not_fetched(
    scheme: str, reason: str, folder: Path
) -> None:
    """A model's output must not reach what only this machine may reach; the endpoint is not on it."""
    async with ScriptedRunPod() as inside:
        url = f"{scheme}://127.0.0.1:{inside.port}/secret"
        fetched = {
            mode: {"mode": mode, "artifacts": [{"path": f"{mode}.bin", "url": "{{ output.url }}"}]} for mode in MODES
        }
        async with ScriptedRunPod(endings(job("COMPLETED", output={"url": url}))) as server:
            carried = await carry(write_job_file(folder, server, fetched))
        assert inside.requests == []
    refused = failed("artifact_failed", f"{url}: {reason}", status="COMPLETED", output={"url": url})
    assert lines_of(carried) == dict.fromkeys(MODES, refused)
    assert carried.files("artifacts") == []


# Retries


@dataclass(frozen=True)
class Again:
    """An outcome to try again: the first job's final answer. *keys* are more keys of the job, *streams* whether the
    first stream has a chunk; *modes* those in which it can come about."""

    outcome: str
    first: JsonObject | Reply
    keys: Mapping[str, Any] = field(default_factory=dict)
    streams: bool = True
    modes: tuple[str, ...] = ("async", "sync", "stream")


GAVE_UP = "job timed out after 1 retries"

AGAIN = [
    Again("failed", job("FAILED", error="no horse")),
    Again("timed_out", job("TIMED_OUT")),
    Again("crashed", job("FAILED", error=GAVE_UP, executionTime=7)),
    Again("lost", job("FAILED", error="Job ID not found")),
    Again("completed_without_output", job("COMPLETED"), streams=False),
    Again("check_failed", job("COMPLETED", output="bad"), {"success_when": "output == 'good' or output == ['b']"}),
    Again("unreadable", says(HTML), modes=("async", "stream")),
    Again("incomplete", job("COMPLETED", output=[], retries=1), modes=("stream",)),
]


@pytest.mark.parametrize("again", [pytest.param(one, id=f"{one.outcome} is tried again") for one in AGAIN])
async def test_an_outcome_that_retry_names_is_tried_again_as_a_new_job(again: Again, folder: Path) -> None:
    """Each attempt is a job of its own, with a stream file of its own, and all of them are on record."""
    first = again.first if isinstance(again.first, Reply) else says(again.first)
    good = says(job("COMPLETED", 2, output="good"))
    looks = {"status/job-1": first, "status/job-2": good}
    over = chunks("COMPLETED")
    scripts: dict[str, Script] = {
        "async": looks,
        "sync": {"runsync": [first, good]},
        "stream": {
            "stream/job-1": [chunks("IN_PROGRESS", "a"), over] if again.streams else over,
            "stream/job-2": [chunks("IN_PROGRESS", "b"), over],
            **looks,
        },
    }
    retry = {"retry": {"attempts": 2, "outcomes": [again.outcome], "wait_initial": "1ms"}}
    modes = {mode: mode for mode in again.modes}
    async with ScriptedRunPod(scripts) as server:
        carried = await carry(write_job_file(folder, server, jobs({**retry, **again.keys}, modes)))
        assert [server.count(operation(mode), mode) for mode in modes] == [2] * len(modes)
    assert lines_of(carried) == {
        mode: completed(["b"] if mode == "stream" else "good", attempts=2, job_id="job-2") for mode in modes
    }
    assert [carried.batch.health["jobs"][mode]["retried"] for mode in modes] == [1] * len(modes)
    with Ledger.read_only(carried.batch.folder.ledger) as ledger:
        for mode in modes:
            ended = [one.ending.outcome for one in ledger.attempts(carried.runs[mode][0]["key"]) if one.ending]
            assert ended == [again.outcome, "completed"]
    assert carried.chunks("stream", 2) == ["b"]
    if again.streams:
        assert carried.chunks("stream", 1) == ["a"]
    assert len(carried.files("streams")) == 1 + again.streams


async def test_attempts_end_where_retry_says_and_the_last_one_counts(folder: Path) -> None:
    """Two attempts mean two payments at most, and the line speaks of the second."""
    retry = {"retry": {"attempts": 2, "outcomes": ["failed"], "wait_initial": "1ms"}}
    finals = [job("FAILED", n, error=f"no horse {n}") for n in (1, 2)]
    async with ScriptedRunPod(endings(*finals)) as server:
        carried = await carry(write_job_file(folder, server, jobs(retry)))
    assert lines_of(carried) == dict.fromkeys(MODES, failed("failed", "no horse 2", attempts=2, job_id="job-2"))


async def test_a_submit_that_is_sent_again_takes_no_attempt_from_retry(folder: Path) -> None:
    """A lost answer is the network's, a failure the job's: each has a policy of its own, and `attempts` counts both."""
    keys = {"on_answer_lost": "resubmit", "retry": {"attempts": 2, "outcomes": ["failed"], "wait_initial": "1ms"}}
    lost, bad = says({}, "500 X"), says(job("FAILED", 2, error="no"))
    good = says(job("COMPLETED", 3, output="ok"))
    queued: Script = {
        "run": [lost, says(job("IN_QUEUE", 2)), says(job("IN_QUEUE", 3))],
        "status/job-2": bad,
        "status/job-3": good,
    }
    scripts: dict[str, Script] = {"async": queued, "sync": {"runsync": [lost, bad, good]}, "stream": queued}
    async with ScriptedRunPod(scripts) as server:
        carried = await carry(write_job_file(folder, server, jobs(keys)))
        assert [server.count(operation(mode), mode) for mode in MODES] == [3, 3, 3]
    assert lines_of(carried) == dict.fromkeys(MODES, completed("ok", attempts=3, job_id="job-3"))


async def test_an_outcome_that_retry_does_not_name_is_settled_at_once(folder: Path) -> None:
    """A handler's own error would only be paid for again."""
    async with ScriptedRunPod(endings(job("FAILED", error="no horse"))) as server:
        carried = await carry(write_job_file(folder, server, jobs({"retry": {"attempts": 5}})))
    assert lines_of(carried) == dict.fromkeys(MODES, failed("failed", "no horse"))


# Time limits of ours


def running(**after_cancel: Reply) -> dict[str, Script]:
    """For each mode, the endpoint whose jobs run until they are cancelled."""
    said = says(job("IN_PROGRESS"))
    after: Script = {f"{name} after cancel": one for name, one in after_cancel.items()}
    common: Script = {"runsync": said, "status": said, **after}
    stream = {"stream": [chunks("IN_PROGRESS", "a"), chunks("IN_PROGRESS")]}
    return {"async": common, "sync": common, "stream": {**common, **stream}}


PASSED = "passed; the job's last status was IN_PROGRESS, and it was cancelled"


@pytest.mark.parametrize(
    ("after", "line"),
    [
        pytest.param(
            {"status": says(job("CANCELLED", executionTime=300)), "stream": chunks("CANCELLED")},
            failed("timed_out", f"timeouts.run {PASSED}", status="CANCELLED"),
            id="the job is cancelled at the endpoint and timed_out",
        ),
        pytest.param(
            {"status": says(job("COMPLETED", output=["a", "b"])), "stream": chunks("COMPLETED")},
            completed(["a", "b"]),
            id="a job that was final already has its own result",
        ),
        pytest.param(
            {"status": says(job("FAILED", error="no horse")), "stream": chunks("FAILED")},
            failed("failed", "no horse"),
            id="a job that had failed already has its own error",
        ),
        pytest.param(
            {"status": says({}, "500 X"), "stream": says({}, "500 X")},
            failed("timed_out", f"timeouts.run {PASSED}", status="IN_PROGRESS"),
            id="an endpoint that says no more leaves the last status seen",
        ),
    ],
)
async def test_a_run_past_timeouts_run_is_cancelled_and_its_own_result_counts(
    after: Mapping[str, Reply], line: Line, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meter has to stop, but what is paid for already is not thrown away. What was streamed is kept."""
    monkeypatch.setattr("runner.attempt.CANCEL_S", 0.5)
    async with ScriptedRunPod(running(**after)) as server:
        carried = await carry(write_job_file(folder, server, jobs({"timeouts": {"run": "800ms"}})), speed=1)
        assert [server.count("cancel", mode) for mode in MODES] == [1, 1, 1]
    streamed = line if line.outcome == "completed" else replace(line, output=["a"])
    assert lines_of(carried) == {"async": line, "sync": line, "stream": streamed}
    assert carried.chunks("stream") == ["a"]


async def test_a_run_that_is_never_accepted_in_time_is_timed_out_and_cost_nothing(folder: Path) -> None:
    """A limit that is hit all the time must not hold a batch for ever."""
    busy = says({}, "429 X")
    async with ScriptedRunPod(dict.fromkeys(MODES, submits(busy))) as server:
        carried = await carry(write_job_file(folder, server, jobs({"timeouts": {"run": "800ms"}})), speed=1)
    message = "timeouts.run passed before the endpoint accepted the run"
    late = Line("failed", "timed_out", None, message=message, attempts=0, job_id=None)
    assert lines_of(carried) == dict.fromkeys(MODES, late)


THREE = {"rows": {"inline": [{"n": 1}, {"n": 2}, {"n": 3}]}, "concurrency": 1}


@pytest.mark.parametrize(
    ("after", "line"),
    [
        pytest.param(
            {"status": says(job("CANCELLED")), "stream": chunks("CANCELLED")},
            failed("timed_out", f"timeouts.job {PASSED}", status="CANCELLED"),
            id="what runs is cancelled and timed_out",
        ),
        pytest.param(
            {"status": says(job("COMPLETED", output=["a", "b"])), "stream": chunks("COMPLETED")},
            completed(["a", "b"]),
            id="what was final already has its own result",
        ),
    ],
)
async def test_a_job_past_timeouts_job_ends_what_runs_and_skips_the_rest(
    after: Mapping[str, Reply], line: Line, folder: Path
) -> None:
    """A nightly job has to be over in the morning, and every run of it accounted for."""
    async with ScriptedRunPod(running(**after)) as server:
        carried = await carry(write_job_file(folder, server, jobs(THREE | {"timeouts": {"job": "800ms"}})), speed=1)
        assert [server.count(operation(mode), mode) for mode in MODES] == [1, 1, 1]
    streamed = line if line.outcome == "completed" else replace(line, output=["a"])
    assert all_lines_of(carried) == {mode: [streamed if mode == "stream" else line, SKIPPED, SKIPPED] for mode in MODES}
    assert (carried.batch.verdict, carried.batch.exit_code) == ("stopped", 1)


@pytest.mark.parametrize(
    ("stop_when", "finals", "lines_wanted", "why"),
    [
        pytest.param(
            {"failed": 1},
            [job("FAILED", 1, error="no")],
            [failed("failed", "no"), SKIPPED, SKIPPED],
            "stop_when: 1 of 3 runs failed (limit 1)",
            id="so many failed",
        ),
        pytest.param(
            {"failed": "60%"},
            [job("FAILED", 1, error="no"), job("FAILED", 2, error="no")],
            [failed("failed", "no"), failed("failed", "no", job_id="job-2"), SKIPPED],
            "stop_when: 2 of 3 runs failed (limit 60%)",
            id="so many of a hundred failed",
        ),
        pytest.param(
            {"cost": "0.20 USD"},
            [job("COMPLETED", n, output="ok", executionTime=10_000) for n in (1, 2)],
            [completed("ok"), completed("ok", job_id="job-2"), SKIPPED],
            "stop_when: 0.2000 USD spent (limit 0.20 USD)",
            id="so much spent",
        ),
    ],
)
async def test_stop_when_starts_nothing_more_and_skips_the_rest(
    stop_when: Mapping[str, Any], finals: Sequence[JsonObject], lines_wanted: list[Line], why: str, folder: Path
) -> None:
    """A broken handler, or a dear one, must not eat the whole budget over night."""
    async with ScriptedRunPod(endings(*finals)) as server:
        path = write_job_file(
            folder, server, jobs(THREE | {"stop_when": stop_when}), endpoint={"cost_per_second": 0.01}
        )
        carried = await carry(path)
        assert [server.count(operation(mode), mode) for mode in MODES] == [len(finals)] * 3
    assert all_lines_of(carried) == dict.fromkeys(MODES, lines_wanted)
    assert [carried.batch.health["jobs"][mode]["stopped"] for mode in MODES] == [why] * 3
    assert (carried.batch.verdict, carried.batch.exit_code) == ("stopped", 1)


# Endpoints that take no jobs


WELL = says({"workers": {"idle": 1}})
UNAUTHORIZED = says({"error": "unauthorized"}, "401 X")
UNKNOWN = says({"detail": "endpoint not found"}, "404 X")
KEY_FIX = "check the endpoint's 'api_key': RunPod's console lists the valid ones"


@dataclass(frozen=True)
class Gone:
    """An endpoint that takes no jobs, the submits that are sent to it, and how the refusal begins and what mends it."""

    script: Script
    submits: int
    message: str
    fix: str


ENDPOINTS = [
    pytest.param(
        Gone(submits(UNAUTHORIZED), 1, 'POST /OP of endpoint \'MODE\': HTTP 401 ({"error": "unauthorized"})', KEY_FIX),
        id="401 on a submit",
    ),
    pytest.param(
        Gone(
            {"health": UNAUTHORIZED},
            0,
            'GET /health of endpoint \'MODE\': HTTP 401 ({"error": "unauthorized"})',
            KEY_FIX,
        ),
        id="401 on the first look at its health",
    ),
    pytest.param(
        Gone(
            submits(says({}, "403 X"), health=[WELL, says({}, "403 X")]),
            1,
            "POST /OP of endpoint 'MODE': HTTP 403 ({})",
            "check that the endpoint's 'api_key' may use this endpoint",
        ),
        id="403 that its health confirms",
    ),
    pytest.param(
        Gone(
            submits(says({}, "402 X")),
            1,
            "POST /OP of endpoint 'MODE': HTTP 402 ({})",
            "add credit to the RunPod account, then go on with --resume",
        ),
        id="402",
    ),
    pytest.param(
        Gone(
            submits(UNKNOWN),
            1,
            'POST /OP of endpoint \'MODE\': HTTP 404 ({"detail": "endpoint not found"})',
            "check the endpoint's 'id', and that the key may see it",
        ),
        id="404 on a submit",
    ),
    pytest.param(
        Gone(
            {"health": UNKNOWN},
            0,
            'GET /health of endpoint \'MODE\': HTTP 404 ({"detail": "endpoint not found"})',
            "check the endpoint's 'id', and that the key may see it",
        ),
        id="404 on the first look at its health",
    ),
    pytest.param(
        Gone(
            submits(says({"code": "ENDPOINT_PAUSED"}, "409 X")),
            2,
            'POST /OP of endpoint \'MODE\': HTTP 409 ({"code": "ENDPOINT_PAUSED"})',
            "set the endpoint's max workers above 0",
        ),
        id="409 for longer than health.wait",
    ),
]


@pytest.mark.parametrize("gone", ENDPOINTS)
async def test_an_endpoint_that_takes_no_jobs_is_refused_and_its_runs_wait_for_a_resume(
    gone: Gone, folder: Path
) -> None:
    """Nothing is settled because of a key that a person can mend; jobs of other endpoints go on."""
    server = ScriptedRunPod(dict.fromkeys(MODES, gone.script))
    async with server:
        path = write_job_file(folder, server, jobs(THREE))
        carried = await carry(path, speed=1)
        assert [server.count(operation(mode), mode) for mode in MODES] == [gone.submits] * 3
    assert all_lines_of(carried) == {mode: [] for mode in MODES}
    assert [carried.batch.health["jobs"][mode]["pending"] for mode in MODES] == [3, 3, 3]
    assert (carried.batch.verdict, carried.batch.exit_code) == ("refused", 4)
    messages = {mode: gone.message.replace("OP", operation(mode)).replace("MODE", mode) for mode in MODES}
    assert {(one.message, one.fix) for one in carried.batch.refusals} == {
        (f"endpoint '{mode}' refused: {said}", gone.fix) for mode, said in messages.items()
    }

    async with ScriptedRunPod(port=server.port) as mended:
        resumed = await carry(path, speed=1, resume=True)
        assert [mended.count(operation(mode), mode) for mode in MODES] == [3, 3, 3]
    assert resumed.batch.folder == carried.batch.folder
    assert all_lines_of(resumed) == {mode: [completed("ok", job_id=f"job-{n}") for n in (1, 2, 3)] for mode in MODES}
    assert (resumed.batch.verdict, resumed.batch.exit_code) == ("pass", 0)


async def test_a_key_that_is_revoked_half_way_settles_nothing_and_a_resume_follows_what_runs(folder: Path) -> None:
    """What runs is paid for: with a working key its result is there for half an hour."""
    scripts = running()
    replies = {mode: {**script, "status": UNAUTHORIZED, "stream": UNAUTHORIZED} for mode, script in scripts.items()}
    server = ScriptedRunPod(replies)
    async with server:
        path = write_job_file(folder, server, jobs(THREE))
        carried = await carry(path)
        assert [server.count(operation(mode), mode) for mode in MODES] == [1, 1, 1]
    assert all_lines_of(carried) == {mode: [] for mode in MODES}
    assert (carried.batch.verdict, carried.batch.exit_code) == ("refused", 4)
    async with ScriptedRunPod(port=server.port) as mended:
        resumed = await carry(path, resume=True)
        assert [mended.count(operation(mode), mode) for mode in MODES] == [2, 2, 2]
        followed = [{one.job_id for one in mended.asked_for if one.endpoint == mode and one.job_id} for mode in MODES]
        assert all("job-1" in ids for ids in followed)
    assert {mode: [line.outcome for line in found] for mode, found in all_lines_of(resumed).items()} == dict.fromkeys(
        MODES, ["completed"] * 3
    )


async def test_an_endpoint_that_is_never_reached_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong base URL must not keep a cron job for a day. The limit, which is 2 minutes, is 300 ms here."""
    monkeypatch.setattr("runner.endpoint.PATIENCE_S", 0.3)
    async with ScriptedRunPod() as neighbour:
        async with ScriptedRunPod() as gone:
            path = write_job_file(folder, gone, jobs({}), neighbour=neighbour)
        carried = await carry(path, speed=1)
    assert all_lines_of(carried) == {mode: [] for mode in MODES}
    assert (carried.batch.verdict, carried.batch.exit_code) == ("refused", 4)
    assert all("connection refused" in one.message for one in carried.batch.refusals)


async def test_an_endpoint_that_disappears_half_way_is_waited_for_until_timeouts_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it was there it may come back; the rest of the batch does not wait for it."""
    monkeypatch.setattr("runner.attempt.CANCEL_S", 0.3)
    gone = ScriptedRunPod(running())
    async with ScriptedRunPod() as neighbour:
        async with gone:
            path = write_job_file(folder, gone, jobs({"timeouts": {"run": "1500ms"}}), neighbour=neighbour)
            task = asyncio.create_task(carry(path, speed=1))
            for mode, look in [("async", "status-sync"), ("sync", "status-sync"), ("stream", "stream")]:
                await gone.until_asked(look, mode, times=2)
        carried = await task
    line = failed("timed_out", f"timeouts.run {PASSED}", status="IN_PROGRESS")
    assert lines_of(carried) == {"async": line, "sync": line, "stream": replace(line, output=["a"])}
    assert (carried.batch.verdict, carried.batch.exit_code) == ("fail", 1)


async def test_an_endpoint_that_disappears_and_comes_back_costs_nothing(folder: Path) -> None:
    """A deploy, a router that restarts: jobs go on meanwhile, and their results are fetched after it."""
    gone = ScriptedRunPod(running())
    async with ScriptedRunPod() as neighbour:
        async with gone:
            path = write_job_file(folder, gone, jobs({}), neighbour=neighbour)
            task = asyncio.create_task(carry(path, speed=20))
            for mode, look in [("async", "status-sync"), ("sync", "status-sync"), ("stream", "stream")]:
                await gone.until_asked(look, mode, times=2)
        await asyncio.sleep(0.1)
        whole = endings(job("COMPLETED", output=["a", "b"]))
        whole["sync"] = whole["async"]
        async with ScriptedRunPod(whole, port=gone.port) as back:
            carried = await task
            assert [back.count(operation(mode), mode) for mode in MODES] == [0, 0, 0]
    assert lines_of(carried) == dict.fromkeys(MODES, completed(["a", "b"]))


# Ends of our own process


async def leave(folder: Path, path: Path, server: ScriptedRunPod, looks: Mapping[str, tuple[str, int]]) -> None:
    """Run the job file at *path* until each job made its looks, so many, and the ledger knows its id; then just end."""
    task = asyncio.create_task(carry(path))
    for name, (look, times) in looks.items():
        await server.until_asked(look, name, times=times)
    async with asyncio.timeout(10):
        while under_way(folder) != dict.fromkeys(looks, "job-1"):  # noqa: ASYNC110 - the recorder's thread tells nobody
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_id_is_in_the_ledger_while_the_first_look_is_out_and_a_resume_follows_it(folder: Path) -> None:
    """With /runsync, too: until its answer nobody has the id, so it is kept before anything else is done with it."""
    final = [SILENT, says(job("COMPLETED", output=["a", "b"]))]
    scripts: dict[str, Script] = {
        "async": {"status": final},
        "sync": {"runsync": says(job("IN_PROGRESS")), "status": final},
        "stream": {"stream": [SILENT, chunks("COMPLETED")], "status": final[1]},
    }
    looks = {"async": ("status-sync", 1), "sync": ("status-sync", 1), "stream": ("stream", 1)}
    async with ScriptedRunPod(scripts) as server:
        path = write_job_file(folder, server, jobs({}))
        await leave(folder, path, server, looks)
        resumed = await carry(path, resume=True)
        assert [server.count(operation(mode), mode) for mode in MODES] == [1, 1, 1]
        assert [server.count("cancel", mode) for mode in MODES] == [0, 0, 0]
    assert lines_of(resumed) == dict.fromkeys(MODES, completed(["a", "b"]))
    assert (resumed.batch.verdict, resumed.batch.exit_code) == ("pass", 0)


@pytest.mark.parametrize(
    ("final", "line"),
    [
        pytest.param(
            job("COMPLETED", output=[]),
            failed(
                "incomplete",
                "chunks of the stream may be missing; those that came are kept",
                status="COMPLETED",
                output=["a", "b"],
            ),
            id="is incomplete, its chunks kept",
        ),
        pytest.param(
            job("COMPLETED", output=["a", "x", "b"]),
            completed(["a", "x", "b"]),
            id="is completed where the list is at the end",
        ),
        pytest.param(
            job("FAILED", error="no horse"),
            failed("failed", "no horse", output=["a", "b"]),
            id="is failed if it failed",
        ),
    ],
)
async def test_a_stream_that_our_end_cut_in_two(final: JsonObject, line: Line, folder: Path) -> None:
    """What the first process had asked for and not yet written is gone, and nobody can say whether it was anything."""
    stream = [chunks("IN_PROGRESS", "a"), SILENT, chunks("IN_PROGRESS", "b"), chunks(final["status"])]
    async with ScriptedRunPod({"it": {"stream": stream, "status": says(final)}}) as server:
        path = write_job_file(folder, server, {"it": {"mode": "stream"}})
        await leave(folder, path, server, {"it": ("stream", 2)})
        resumed = await carry(path, resume=True)
        assert server.count("run", "it") == 1
    assert lines_of(resumed) == {"it": line}
    assert resumed.chunks("it") == ["a", "b"]
