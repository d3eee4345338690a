"""``runner cancel``: the end of a batch for good, whether a process runs it or none does."""

import io
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import RUNS, Proxy, Stage, kill, said, staged_server
from terminal import Ran, Server, finish, lines, wait_until

from runner.commands.cancel import cancel

STOPPED = dict.fromkeys((0, 1), "completed") | dict.fromkeys((2, 3), "cancelled") | dict.fromkeys((4, 5))
"""The outcomes of a batch that was cancelled in the middle."""

AT_ENDPOINT = {0: ["COMPLETED"], 1: ["COMPLETED"], 2: ["CANCELLED"], 3: ["CANCELLED"]}
"""How its jobs stand at the endpoint."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An endpoint that outlives every runner."""
    with staged_server(tmp_path_factory.mktemp("served"), workers=5) as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path, server: Server) -> Iterator[Stage]:
    """A job file of six runs that has not been run."""
    stage = Stage.make(tmp_path, server)
    yield stage
    stage.go()


def check_stopped(stage: Stage) -> None:
    """The batch was cancelled in the middle, and nothing of it is left anywhere."""
    assert stage.outcomes() == STOPPED
    assert stage.statuses() == AT_ENDPOINT
    stage.check_whole()
    health = stage.health()
    assert (health["verdict"], health["batch"]["pending"]) == ("stopped", 0)
    assert health["jobs"]["job"]["stopped"] == "cancelled by 'runner cancel'"
    never_sent = [one for one in stage.settled() if one["index"] in (4, 5)]
    assert [(one["state"], one["outcome"], one["attempts"], one["job_id"]) for one in never_sent] == [
        ("skipped", None, 0, None),
        ("skipped", None, 0, None),
    ]


# While a process runs it


def test_the_process_that_runs_a_batch_ends_it(stage: Stage) -> None:
    """The meter stops, and whoever started it is told."""
    stage.go(0, 1)
    process = stage.start()
    stage.wait_settled(2)
    stage.wait_began(2, 3)
    cancelled = stage.runner("cancel", "one")
    ran = finish(process)
    assert (ran.code, cancelled.code) == (1, 0), ran.err + cancelled.err
    assert cancelled.err == f"asked the process that runs batch {stage.batch.id} to cancel it; waiting for its end\n"
    assert ran.out.startswith(f"stopped: one {stage.batch.id}\n  job: cancelled by 'runner cancel'\n")
    assert cancelled.out == ran.out
    check_stopped(stage)


def test_a_batch_that_has_sent_nothing_yet_sends_nothing(tmp_path: Path, server: Server) -> None:
    """Who sees the mistake at once pays nothing for it."""
    with Proxy(server) as proxy:
        stage = Stage.make(tmp_path, server, url=proxy.url)
        proxy.hold("health")
        process = stage.start()
        proxy.wait_for("health")
        cancelling = stage.runner_started("cancel", stage.batch.id)
        said(cancelling, "asked the process that runs batch")
        wait_until(lambda: "cancelled by 'runner cancel'" in stage.batch.log.read_text(), "the wish to be heard")
        proxy.release()
        assert (finish(cancelling).code, finish(process).code) == (0, 1)
    assert stage.accepted() == {}
    assert stage.outcomes() == dict.fromkeys(range(RUNS))
    assert stage.health()["verdict"] == "stopped"
    stage.check_whole()


def test_a_batch_that_drains_is_cancelled_all_the_same(stage: Stage) -> None:
    """Ctrl-C leaves what runs to a resume; who cancels then wants no resume."""
    stage.go(0, 1)
    process = stage.start("--drain", "60s")
    stage.wait_settled(2)
    stage.wait_began(2, 3)
    process.send_signal(signal.SIGINT)
    said(process, "SIGINT: starting nothing more")
    cancelled = stage.runner("cancel", "one")
    ran = finish(process)
    assert (ran.code, cancelled.code) == (1, 0), ran.err
    assert cancelled.out == ran.out
    check_stopped(stage)


# While no process runs it


def test_a_batch_whose_process_was_killed_is_cancelled_by_us(stage: Stage) -> None:
    """The jobs go on at RunPod without us, and so does the meter."""
    stage.kill_in_the_middle()
    cancelled = stage.runner("cancel", "one")
    assert (cancelled.code, cancelled.err) == (0, "")
    assert cancelled.out.startswith(f"stopped: one {stage.batch.id}\n  job: cancelled by 'runner cancel'\n")
    check_stopped(stage)
    again = stage.runner("resume", "one")
    assert (again.code, again.out) == (1, cancelled.out)
    assert stage.statuses() == AT_ENDPOINT


def test_the_report_is_the_one_document_on_stdout(stage: Stage) -> None:
    """What a script reads; a job that ended before it could be cancelled has the result it has."""
    stage.kill_in_the_middle()
    stage.go(2)
    wait_until(lambda: stage.statuses()[2] == ["COMPLETED"], "run 2 to end while nobody looks")
    cancelled = stage.runner("cancel", "one", "--format", "json")
    assert (cancelled.code, cancelled.err) == (0, "")
    assert cancelled.json == stage.health()
    assert stage.outcomes() == STOPPED | {2: "completed"}
    stage.check_whole()


def test_what_has_become_of_the_job_file_does_not_matter(stage: Stage) -> None:
    """The first thing that people do is to mend the mistake; then they remember what still runs."""
    stage.kill_in_the_middle()
    file = stage.folder / "one.yaml"
    file.write_text(file.read_text().replace("local", "elsewhere").replace("  job:", "  other:") + "more: [")
    cancelled = stage.runner("cancel", "one")
    assert (cancelled.code, cancelled.err) == (0, "")
    check_stopped(stage)


def test_without_its_data_what_was_sent_is_cancelled_and_the_rest_waits(stage: Stage) -> None:
    """A line of what was never sent says what it would have been, which nobody knows any more."""
    stage.kill_in_the_middle()
    data = stage.folder / "rows.csv"
    text = data.read_text()
    data.write_text("n\n0\n1\n2\n7\n4\n5\n")
    cancelled = stage.runner("cancel", "one")
    assert cancelled.code == 0
    assert cancelled.err == (
        "warning: 2 runs that were never sent stay pending: the data are no longer those that the batch was started"
        " with\n  help: put them back and run 'runner cancel' again, or start a new batch with --fresh\n"
    )
    assert stage.statuses() == AT_ENDPOINT
    assert stage.outcomes() == {n: outcome for n, outcome in STOPPED.items() if outcome}
    stage.check_sound()

    data.write_text(text)
    assert stage.runner("cancel", "one").code == 0
    check_stopped(stage)


def test_what_was_to_be_run_again_and_never_was_keeps_what_it_came_to(stage: Stage) -> None:
    """It failed, and somebody paid for that: to call it never sent would be wrong."""
    stage.fail(1, 3, 5)
    stage.go()
    assert stage.run().code == 1
    stage.mend()
    process = stage.runner_started("resume", "one", "--retry-failed")
    stage.wait_known(1, 3)
    kill(process)
    cancelled = stage.runner("cancel", "one")
    assert (cancelled.code, cancelled.err) == (0, "")
    good = dict.fromkeys((0, 2, 4), "completed")
    assert stage.outcomes() == good | {1: "cancelled", 3: "cancelled", 5: "failed"}
    (failed,) = [one for one in stage.settled() if one["index"] == 5]
    assert (failed["attempts"], failed["error"]["message"]) == (1, "no horse")
    stage.check_whole()


# What can't be cancelled


@pytest.fixture(scope="module")
def unreachable(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Any]]:
    """A batch that was killed in the middle, and its cancelling, which takes a while: the endpoint is gone."""
    with Proxy(server) as proxy:
        stage = Stage.make(tmp_path_factory.mktemp("unreachable"), server, url=proxy.url)
        stage.kill_in_the_middle()
    yield stage, stage.runner_started("cancel", "one")
    stage.go()


@pytest.fixture(scope="module", autouse=True)
def _begun_early(unreachable: tuple[Stage, Any]) -> None:
    """Begin the slow one first: the other tests run meanwhile."""


@pytest.fixture(scope="module")
def passed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, Ran]:
    """A batch that passed, and what was said of it."""
    stage = Stage.make(tmp_path_factory.mktemp("passed"), server)
    stage.go()
    ran = stage.run()
    assert ran.code == 0, ran.err
    return stage, ran


def cancelled_here(stage: Stage, name: str, **more: Any) -> Ran:
    """What ``runner cancel`` says, in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = cancel(name, output_dir=stage.folder / "batches", out=out, err=err, **more)
    return Ran(code, out.getvalue(), err.getvalue())


def test_a_batch_that_has_ended_is_left_as_it_is(passed: tuple[Stage, Ran]) -> None:
    """There is nothing to stop; and it is no mistake to ask."""
    stage, ran = passed
    told = f"batch {stage.batch.id} has ended already; there is nothing to cancel\n"
    assert cancelled_here(stage, "one") == Ran(0, ran.out, told)
    found = cancelled_here(stage, stage.batch.id, as_json=True)
    assert (found.code, found.json, found.err) == (0, stage.health(), told)
    assert stage.health()["verdict"] == "pass"
    stage.check_whole()


def test_a_batch_beside_one_that_runs_has_to_wait(stage: Stage) -> None:
    """One process writes the batches of a name; which of them was meant is never guessed."""
    stage.kill_in_the_middle()
    killed = stage.batch
    process = stage.start("--fresh")
    wait_until(lambda: stage.batch != killed, "the second batch")
    refused = stage.runner("cancel", killed.id)
    assert (refused.code, refused.out) == (5, "")
    assert refused.err.startswith(f"error: another batch of 'one' is running: process {process.pid} on ")
    stage.go()
    assert finish(process).code == 0
    assert len(stage.settled()) == RUNS
    assert len(lines(killed.results)) == 2


def test_a_wish_that_nobody_heard_does_not_end_a_later_resume(stage: Stage) -> None:
    """It was made to a process that is gone, by one that is gone as well."""
    stage.kill_in_the_middle()
    stage.batch.wish.touch()
    stage.go()
    assert stage.run("--resume").code == 0
    assert not stage.batch.wish.exists()
    stage.check_whole()


def test_jobs_that_can_not_be_reached_are_counted_and_can_be_cancelled_later(
    unreachable: tuple[Stage, "subprocess.Popen[str]"], server: Server
) -> None:
    """Nobody may believe that the meter stands still when it does not."""
    stage, process = unreachable
    ran = finish(process)
    assert ran.code == 1
    assert ran.err == (
        "error: 2 jobs are not known to have ended at RunPod\n  help: run 'runner cancel' again once RunPod answers\n"
    )
    assert ran.out.startswith(f"stopped: one {stage.batch.id}\n  job: cancelled by 'runner cancel'\n")
    assert "2 of 6 runs pending" in ran.out
    assert stage.statuses() == AT_ENDPOINT | {2: ["IN_PROGRESS"], 3: ["IN_PROGRESS"]}
    stage.check_sound()
    at = json.loads(stage.batch.manifest.read_text())["local_url"].removeprefix("http://").split("/")[0].split(":")
    with Proxy(server, port=int(at[1])):
        assert stage.runner("cancel", "one").code == 0
    check_stopped(stage)
