"""A batch that cron runs: it says nothing when all is well, and what is needed when not."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import HANDLER, Proxy, Stage, staged_server
from terminal import Ran, Server, finish, write

NIGHTLY = ("--resume", "--quiet")
"""What stands in a crontab: go on with what last night left, or begin."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An endpoint that outlives every runner."""
    with staged_server(tmp_path_factory.mktemp("served"), workers=4) as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path, server: Server) -> Iterator[Stage]:
    """A job file of six runs that has not been run."""
    stage = Stage.make(tmp_path, server)
    yield stage
    stage.go()


def test_a_good_night_is_silent(tmp_path: Path) -> None:
    """Cron mails whatever is said; and a handler says much."""
    stage = Stage.make(tmp_path)
    loud = HANDLER.replace("    while not", '    print("\\x1b[31mloading\\x1b[0m" * 100)\n    while not')
    write(tmp_path, {"handler.py": loud})
    stage.go()
    assert stage.run(*NIGHTLY) == Ran(0, "", "")
    stage.check_sound()
    assert "loading" in stage.batch.log.read_text()


def test_a_night_that_goes_on_with_the_last_one_is_silent(stage: Stage) -> None:
    """The machine was restarted, and nobody has to know."""
    stage.kill_in_the_middle("--quiet")
    stage.go()
    assert stage.run(*NIGHTLY) == Ran(0, "", "")
    stage.check_whole()
    assert {n: len(ids) for n, ids in stage.accepted().items()} == dict.fromkeys(range(6), 1)


def test_a_bad_night_is_told_in_a_few_plain_lines(stage: Stage) -> None:
    """They are read in a mail, the next morning."""
    stage.fail(1, 4)
    stage.go()
    ran = stage.run(*NIGHTLY)
    assert (ran.code, ran.out) == (1, "")
    told = ran.err.splitlines()
    assert told[:2] == [f"fail: one {stage.batch.id}", "  2 of 6 runs did not succeed"]
    assert told[2].startswith("  job  4 of 6 succeeded (2 failed), execution p50 ")
    assert told[3] == "       2 x ValueError: no horse"
    assert told[-1] == f"  {stage.batch.path}"
    assert len(told) < 10
    assert "\x1b" not in ran.err


def test_a_machine_that_shuts_down_is_told_with_what_is_left(stage: Stage) -> None:
    """The next night goes on; who reads the mail sees that it has to."""
    stage.go(0, 1)
    process = stage.start(*NIGHTLY, "--drain", "100ms")
    stage.wait_settled(2)
    stage.wait_began(2, 3)
    process.send_signal(signal.SIGTERM)
    ran = finish(process)
    assert (ran.code, ran.out) == (143, "")
    assert re.sub(r"execution.*", "…", ran.err).splitlines() == [
        "SIGTERM: starting nothing more; following 2 in flight for 0.1s",
        "  Ctrl-C again cancels them at RunPod; a resume goes on with them otherwise",
        f"interrupted: one {stage.batch.id}",
        "  4 of 6 runs pending",
        "  job  2 of 6 succeeded (4 pending), …",
        f"  {stage.batch.path}",
        "  go on with --resume",
    ]
    stage.go()
    assert stage.run(*NIGHTLY) == Ran(0, "", "")
    stage.check_whole()


def test_a_night_that_has_not_ended_is_not_disturbed_by_the_next(stage: Stage) -> None:
    """Two at once would pay twice; and cron has to be told that the first one takes so long."""
    process = stage.start("--quiet")
    stage.wait_began(0, 1)
    ran = stage.run(*NIGHTLY)
    assert (ran.code, ran.out) == (5, "")
    first, fix = ran.err.splitlines()
    assert first.startswith(f"error: another batch of 'one' is running: process {process.pid} on ")
    assert fix.startswith("  help: wait for it, or stop it with Ctrl-C or SIGTERM there")
    stage.go()
    assert finish(process) == Ran(0, "", "")
    stage.check_whole()


def test_a_night_without_its_endpoint_is_told_why(tmp_path: Path, server: Server) -> None:
    """A key that was taken back is the commonest end of a cron job that ran for months."""
    with Proxy(server) as proxy:
        stage = Stage.make(tmp_path, server, url=proxy.url)
        ran = finish(stage.start(*NIGHTLY, token="wrong-token"))
    assert (ran.code, ran.out) == (4, "")
    told = ran.err.splitlines()
    assert told[0].startswith("error: endpoint 'local' refused: GET /health of endpoint 'local': HTTP 401 ")
    assert told[1] == "  help: check the endpoint's 'api_key': RunPod's console lists the valid ones"
    assert told[2].startswith(f"refused: one {stage.batch.id}")
    assert "wrong-token" not in ran.err
    assert stage.accepted() == {}
    assert stage.settled() == []
    stage.check_sound()
