"""Shards on a Ray cluster, as far as that can be told without one: `make ray` kills nodes of a real one."""

from pathlib import Path

import pytest
from job_files import write
from terminal import runner

from runner import extras
from runner.commands.ray import run
from runner.commands.run import Style
from runner.errors import UsageError
from runner.on_ray import CANCEL, DRAIN, GO_ON, Board, Mark, environment, progress
from runner.options import Options


def test_a_wish_reaches_every_shard_and_is_not_taken_back() -> None:
    """Those that begin later, too: a drain must not start anew what Ray had still queued."""
    board = Board()
    assert board.tell("1/2", None) == GO_ON
    board.set(CANCEL)
    board.set(DRAIN)
    assert board.tell("1/2", {"settled": 3}) == board.tell("2/2", None) == CANCEL


def test_a_shard_that_is_started_again_knows_it() -> None:
    """It takes over a remote folder from the task that died, whose lease nobody ends; the first one must not."""
    board = Board()
    assert not board.has_begun("1/2")
    board.tell("1/2", None)
    assert board.has_begun("1/2")
    assert not board.has_begun("2/2")


def test_how_far_all_are_is_one_line() -> None:
    """What shards plan is only known of those that have begun."""
    board = Board()
    board.tell("1/2", {"planned": 10, "settled": 4, "failed": 1, "in_flight": 3})
    assert progress(board.read(), 2, 0) == "0 of 2 shards ended, 1 running: 4 runs settled, 1 failed, 3 in flight"
    board.tell("2/2", {"planned": 12, "settled": 12, "failed": 0, "in_flight": 0})
    assert progress(board.read(), 2, 1) == (
        "1 of 2 shards ended, 1 running: 16 runs settled of 22, 1 failed, 3 in flight"
    )


def test_nodes_get_the_variables_of_the_job_file_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node may have secrets of its own, and needs none of ours but these."""
    path = write(tmp_path, {}, endpoints={"local": {"id": "${SDXL}", "api_key": "${KEY}"}})
    for name in ("SDXL", "KEY", "OTHER", "RUNNER_LOCAL_TOKEN"):
        monkeypatch.setenv(name, f"the {name}")
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    assert environment(Options(path)) == {
        "SDXL": "the SDXL",
        "KEY": "the KEY",
        "RUNNER_LOCAL_TOKEN": "the RUNNER_LOCAL_TOKEN",
    }


def test_a_node_that_does_not_see_the_batch_s_folder_runs_nothing(tmp_path: Path) -> None:
    """A shard that died there would begin anew elsewhere, and be paid for twice."""
    mark = Mark(tmp_path / "batches/t/x/.ray", "nonce")
    assert not mark.is_seen()
    mark.path.parent.mkdir(parents=True)
    mark.write()
    assert mark.is_seen()
    assert not Mark(mark.path, "another driver's").is_seen()


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, which nobody else pays for."""
    monkeypatch.setattr(extras, "is_there", lambda _library: False)
    with pytest.raises(UsageError) as error:
        run(Options(write(tmp_path, {})), Style(), address="local", of=2)
    assert error.value.render() == (
        "error: --ray needs ray, which is not installed\n  help: pip install 'runpod-runner[ray]'"
    )


def test_what_no_shard_could_do_is_refused_before_a_cluster_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and not by each shard."""
    monkeypatch.setattr(extras, "is_there", lambda _library: True)
    with pytest.raises(UsageError) as error:
        run(Options(write(tmp_path, {"concurrency": 3})), Style(), address="local", of=4)
    assert error.value.message == "--shard 1/4: 'concurrency' of job 'only' is 3, less than one for each shard"


def test_a_batch_that_has_begun_elsewhere_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk: it is asked before a cluster is."""
    monkeypatch.setattr(extras, "is_there", lambda _library: True)
    monkeypatch.setenv("RUNNER_CACHE_DIR", str(tmp_path / "cache"))
    shard = tmp_path / "there/t/b/shards/01-of-02"
    shard.mkdir(parents=True)
    (shard / "manifest.json").write_text("{}")
    path = write(tmp_path, {}, outputs={"dir": f"file://{tmp_path / 'there'}"})
    with pytest.raises(UsageError) as error:
        run(Options(path), Style(), address="local", of=2, batch_id="b")
    assert error.value.message == f"batch b has begun, in file://{tmp_path / 'there'}/t/b"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--ray", "local"],
            "error: --ray and --shards come together, without --shard and --repeat\n"
            "  help: write --ray local --shards 4\n",
        ),
        (
            ["--batch-id", "x"],
            "error: --batch-id is for the shards of a batch\n  help: write --shard 3/16 too, or leave it out\n",
        ),
    ],
)
def test_options_that_mean_nothing_alone_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    """A batch that should have been divided must not be run whole."""
    ran = runner("run", write(tmp_path, {}), *words, cwd=tmp_path)
    assert (ran.code, ran.out, ran.err) == (2, "", message)
