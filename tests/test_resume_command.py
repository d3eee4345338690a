"""``runner resume``: going on with a batch after a kill, looking at one that has ended, running again what failed."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import RUNS, Proxy, Stage, kill, staged_server
from terminal import Ran, Server, finish, lines, start, wait_until

from runner.commands.resume import resume
from runner.commands.run import Style
from runner.commands.show import show
from runner.commands.status import status
from runner.errors import RunnerError, UsageError

ALL = set(range(RUNS))
RETRY = "    retry: {attempts: 2, outcomes: [failed], wait_initial: 1ms}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An endpoint that outlives every runner."""
    with staged_server(tmp_path_factory.mktemp("served"), workers=6) as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path, server: Server) -> Stage:
    """A job file of six runs that has not been run."""
    return Stage.make(tmp_path, server)


def counts(stage: Stage) -> dict[int, int]:
    """How many jobs the endpoint accepted for each run."""
    return {n: len(ids) for n, ids in sorted(stage.accepted().items())}


def standing(stage: Stage) -> Any:
    """What ``runner status --format json`` prints."""
    out = io.StringIO()
    assert status(str(stage.batch.path), output_dir=None, as_json=True, out=out) == 0
    return json.loads(out.getvalue())


def attempts(stage: Stage, run: int) -> list[Any]:
    """The attempts of a run, as ``runner show --format json`` prints them."""
    out = io.StringIO()
    assert show(str(stage.batch.path), str(run), output_dir=None, as_json=True, out=out) == 0
    found: list[Any] = json.loads(out.getvalue())["attempts"]
    return found


# After a kill


def test_a_batch_that_was_killed_goes_on_where_it_was(stage: Stage) -> None:
    """What is with a worker is followed, not sent again."""
    stage.kill_in_the_middle()
    assert standing(stage)["verdict"] == "unfinished"
    stage.go()
    ran = stage.runner("resume", "one")
    batch = stage.batch
    assert (ran.code, ran.err) == (0, f"going on with one {batch.id}: 6 runs\n")
    assert ran.out.splitlines()[::2] == [f"pass: one {batch.id}", f"  {batch.path}"]
    assert counts(stage) == dict.fromkeys(ALL, 1)
    stage.check_whole()


def test_an_older_batch_is_gone_on_with_by_its_id(stage: Stage) -> None:
    """The newest one is not the only one that somebody paid for."""
    stage.kill_in_the_middle()
    older = stage.batch
    stage.go()
    assert stage.run("--fresh").code == 0
    newer = stage.batch
    ran = stage.runner("resume", older.id)
    assert ran.code == 0, ran.err
    assert len(lines(older.results)) == len(lines(newer.results)) == RUNS
    assert stage.batch == newer
    assert counts(stage) == dict.fromkeys(ALL, 2)


def test_a_job_is_followed_where_it_was_sent_whatever_the_file_says_now(stage: Stage) -> None:
    """Somebody moved to another endpoint meanwhile; what the old one has is paid for, and its key is its own."""
    stage.kill_in_the_middle()
    file = stage.folder / "one.yaml"
    assert stage.server is not None
    there = f'  there: {{id: local, base_url: "{stage.server.url}", api_key: "${{THERE_KEY}}"}}'
    text = "\n".join(there if "handler:" in line else line for line in file.read_text().splitlines())
    file.write_text(text.replace("endpoint: local", "endpoint: there") + "\n")
    stage.go()
    key = {"THERE_KEY": stage.server.token}
    ran = finish(start("resume", "one", cwd=stage.folder, env=stage.env | key))
    assert ran.code == 0, ran.err
    assert {n: [one["endpoint"] for one in attempts(stage, n)] for n in (2, 4)} == {2: ["local"], 4: ["there"]}
    stage.check_whole()


def test_a_batch_that_was_killed_before_its_report_gets_it(tmp_path: Path, server: Server) -> None:
    """All is settled, and nobody has been told: there is nothing to send, but something to say."""
    with Proxy(server) as proxy:
        stage = Stage.make(tmp_path, server, url=proxy.url)
        stage.go(0, 1, 2, 3, 4)
        process = stage.start()
        stage.wait_settled(5)
        proxy.hold("health")
        stage.go(5)
        stage.wait_settled(6)
        kill(process)
        assert not stage.batch.health.exists()
        proxy.release()
        assert stage.runner("resume", "one").code == 0
    stage.check_whole()
    assert counts(stage) == dict.fromkeys(ALL, 1)


# What can't go on


@pytest.fixture(scope="module")
def killed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A batch that was killed in the middle, and that no test goes on with."""
    stage = Stage.make(tmp_path_factory.mktemp("killed"), server)
    stage.kill_in_the_middle()
    yield stage
    stage.go()


def test_other_options_are_refused_and_send_nothing(killed: Stage) -> None:
    """Half a batch by one setting and half by another is no experiment."""
    before = killed.accepted()
    ran = killed.run("--resume", "--limit", "5")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        f"error: batch {killed.batch.id} can't be gone on with like this: its options were none\n"
        "  help: give the same options, or start a new batch with --fresh\n",
    )
    assert killed.accepted() == before


def test_a_job_that_is_gone_from_the_file_is_named(killed: Stage) -> None:
    """Its runs are with RunPod, and nobody knows any more what to make of them."""
    before, file = killed.accepted(), killed.folder / "one.yaml"
    text = file.read_text()
    file.write_text(text.replace("  job:\n", "  other:\n"))
    ran = killed.runner("resume", "one")
    file.write_text(text)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: job 'job' is no longer in {file}, and runs of it are not settled\n  help: put it back, then go on\n"
    )
    assert killed.accepted() == before


def test_two_at_once_are_one_too_many(killed: Stage) -> None:
    """A person and cron may both find the batch unfinished."""
    process = killed.runner_started("resume", "one")
    lock = killed.folder / "batches/one/.lock"
    wait_until(lambda: f'"pid": {process.pid}' in lock.read_text(), "the lock to be taken")
    ran = killed.runner("resume", "one", "--quiet")
    kill(process)
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.startswith(f"error: another batch of 'one' is running: process {process.pid} on ")


# When it has ended


@pytest.fixture(scope="module")
def passed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Ran]:
    """A batch that passed, and what was said of it."""
    stage = Stage.make(tmp_path_factory.mktemp("passed"), server)
    stage.go()
    ran = stage.run()
    assert ran.code == 0, ran.err
    return stage, ran


def resumed(stage: Stage, name: str, style: Style | None = None, **more: Any) -> Ran:
    """What ``runner resume`` says, where no signal is in play."""
    out, err = io.StringIO(), io.StringIO()
    outputs = stage.folder / "batches"
    try:
        code = resume(name, style or Style(), output_dir=outputs, out=out, err=err, **more)
    except RunnerError as error:
        return Ran(error.exit_code, out.getvalue(), error.render())
    return Ran(code, out.getvalue(), err.getvalue())


def test_a_finished_batch_sends_nothing_and_says_what_it_came_to(passed: tuple[Stage, Ran]) -> None:
    """By whatever it is named; cron's exit code can be asked for once more."""
    stage, ran = passed
    files = {path: path.read_bytes() for path in stage.batch.path.iterdir() if "ledger" not in path.name}
    assert stage.runner("resume", "one") == Ran(0, ran.out, "")
    for name in (stage.batch.id, str(stage.batch.path), os.path.relpath(stage.batch.path), "one", "latest"):
        assert resumed(stage, name) == Ran(0, ran.out, "")
    assert resumed(stage, "one", retry_failed=True) == Ran(0, ran.out, "")
    assert resumed(stage, "one", Style(quiet=True)) == Ran(0, "", "")
    assert json.loads(resumed(stage, "one", Style(as_json=True)).out) == stage.health()
    assert counts(stage) == dict.fromkeys(ALL, 1)
    assert {path: path.read_bytes() for path in files} == files


def test_what_names_no_batch_is_said_plainly(passed: tuple[Stage, Ran]) -> None:
    """With what a name may be."""
    stage, _ = passed
    assert resumed(stage, "nowhere") == Ran(
        2,
        "",
        f"error: no batch 'nowhere': it is no batch folder, and {stage.folder / 'batches'} holds none of that name\n"
        "  help: give a batch folder, an id, a job file's name, or 'latest'; --output-dir says where to look",
    )


def test_a_manifest_that_is_gone_is_said_plainly(passed: tuple[Stage, Ran], tmp_path: Path) -> None:
    """It alone says what to go on with."""
    stage, _ = passed
    shutil.copytree(stage.batch.path, copy := tmp_path / stage.batch.id)
    (copy / "manifest.json").unlink()
    with pytest.raises(UsageError) as caught:
        resume(str(copy), Style())
    assert caught.value.render() == (
        f"error: {copy / 'manifest.json'} can't be read: No such file or directory\n"
        "  help: restore it from a copy, or start a new batch with --fresh"
    )


# Running again


def some_that_failed(stage: Stage, proxy: Proxy) -> Ran:
    """Run the batch so that 1 and 3 fail, the answer to the submit of 5 is lost, and the others succeed."""
    stage.fail(1, 3)
    stage.go(0, 1, 2)
    process = stage.start()
    stage.wait_settled(3)
    stage.wait_began(3, 4)
    proxy.lose("run")
    stage.go(3)
    wait_until(lambda: 5 in stage.accepted(), "run 5 to be accepted")
    stage.wait_settled(5)  # 5 settles at once: nobody knows its id
    stage.go()
    ran = finish(process)
    proxy.find()
    stage.mend()
    expected = dict.fromkeys((0, 2, 4), "completed") | dict.fromkeys((1, 3), "failed") | {5: "answer_lost"}
    assert stage.outcomes() == expected
    return ran


def test_only_what_did_not_succeed_is_run_again_and_only_if_asked(tmp_path: Path, server: Server) -> None:
    """Every attempt is paid for: what succeeded is never touched, and what was tried stays on record."""
    with Proxy(server) as proxy:
        stage = Stage.make(tmp_path, server, url=proxy.url)
        ran = some_that_failed(stage, proxy)
        assert ran.code == 1
        stage.check_whole()
        good = {one["index"]: one for one in stage.settled() if one["state"] == "succeeded"}
        assert resumed(stage, "one") == Ran(1, ran.out, "")
        assert counts(stage) == dict.fromkeys(ALL, 1)

        stage.go()
        again = stage.runner("resume", "one", "--retry-failed")
        assert again.code == 0, again.err
        assert again.out.splitlines()[1].startswith("  job  6 of 6 succeeded, 3 retried, ")
    stage.check_whole()
    tried = {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 2}
    assert counts(stage) == tried
    found = {one["index"]: one for one in stage.settled()}
    assert {n: found[n]["attempts"] for n in ALL} == tried
    assert {n: found[n] for n in good} == good
    assert list(found)[:3] == list(good)
    first, second = stage.accepted()[1]
    shown = [(one["attempt"], one["job_id"], one["outcome"]) for one in attempts(stage, 1)]
    assert shown == [(1, first, "failed"), (2, second, "completed")]
    shown = [(one["attempt"], one["job_id"], one["outcome"]) for one in attempts(stage, 5)]
    assert shown == [(1, None, "answer_lost"), (2, stage.accepted()[5][1], "completed")]
    totals = standing(stage)["batch"]
    assert (totals["runs"], totals["succeeded"], totals["failed"], totals["retried"]) == (6, 6, 0, 3)


def test_a_kill_in_the_middle_of_running_again_loses_and_repeats_nothing(stage: Stage) -> None:
    """Old lines are neither taken for new ones, nor do they come back."""
    stage.fail(1, 3, 5)
    stage.go()
    assert stage.run().code == 1
    stage.mend()
    stage.go(1)
    process = stage.runner_started("resume", "one", "--retry-failed")
    wait_until(lambda: len(stage.settled()) == RUNS + 1, "run 1 to settle again")
    stage.wait_known(3, 5)
    kill(process)
    status = standing(stage)
    assert (status["verdict"], status["batch"]["succeeded"], status["batch"]["pending"]) == ("unfinished", 4, 2)
    shown = stage.runner("results", "one", "--format", "json").json
    assert sorted(one["index"] for one in shown) == [0, 1, 2, 4]

    stage.go()
    ran = stage.runner("resume", "one")
    assert ran.code == 0, ran.err
    stage.check_whole()
    assert counts(stage) == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 2}
    assert {one["outcome"] for one in stage.settled()} == {"completed"}


def test_running_again_begins_with_all_retries_there_are(tmp_path: Path, server: Server) -> None:
    """Who asks for it has mended something; `attempts` counts on, for each was paid."""
    stage = Stage.make(tmp_path, server, more=RETRY)
    stage.fail(2)
    stage.go()
    assert stage.run().code == 1
    assert counts(stage)[2] == 2
    assert stage.runner("resume", "one", "--retry-failed").code == 1
    assert counts(stage) == dict.fromkeys(ALL, 1) | {2: 4}
    stage.check_whole()
    assert [one["attempts"] for one in stage.settled() if one["index"] == 2] == [4]
    assert [one["outcome"] for one in attempts(stage, 2)] == ["failed"] * 4


def test_what_was_skipped_is_run_once_it_is_asked_for(tmp_path: Path, server: Server) -> None:
    """A batch that was stopped for good is not lost for good."""
    stage = Stage.make(tmp_path, server, more="    stop_when: {failed: 1}\n")
    stage.fail(0)
    stage.go(0)
    process = stage.start()
    stage.wait_settled(1)
    stage.wait_began(1)
    stage.go()
    ran = finish(process)
    assert (ran.code, stage.health()["verdict"]) == (1, "stopped")
    skipped = {n for n, outcome in stage.outcomes().items() if outcome is None}
    assert skipped >= {3, 4, 5}
    assert counts(stage).keys() == ALL - skipped
    assert resumed(stage, "one") == Ran(1, ran.out, "")
    (stage.folder / "at/0.fail").unlink()
    again = stage.runner("resume", "one", "--retry-failed")
    assert (again.code, stage.health()["verdict"]) == (0, "pass"), again.err
    stage.check_whole()
    assert counts(stage) == dict.fromkeys(ALL, 1) | {0: 2}
