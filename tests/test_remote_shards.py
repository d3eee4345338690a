"""Shards whose folders are elsewhere, on machines that share nothing else."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_files import write
from terminal import Ran, Server, finish, runner, serving, start

from torture import remote

RUNS = 12
KEYS = {
    "rows": {"inline": [{"n": n} for n in range(RUNS)]},
    "input": {"n": "{{ row.n }}"},
    "on_answer_lost": "resubmit",
}


class Machines:
    """Machines with a cache each, and one folder that all can reach."""

    def __init__(
        self, folder: Path, server: Server, *, url: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.url = url or f"file://{folder / 'there'}"
        self.common = f"{self.url}/t/b"
        self.server = server
        self.job_file = write(folder, KEYS, outputs={"dir": self.url})
        self._env = server.env | (env or {})

    def env(self, machine: str) -> dict[str, str]:
        """What is different on *machine*."""
        return self._env | {"RUNNER_CACHE_DIR": str(self.folder / machine)}

    def do(self, machine: str, *words: str) -> Ran:
        """Run the command on *machine*."""
        return runner(*words, cwd=self.folder, env=self.env(machine))

    def words(self, shard: str, *more: str) -> list[str]:
        """What starts *shard*."""
        words = ["run", str(self.job_file), "--shard", shard, "--batch-id", "b", "--local", self.server.url]
        return [*words, "--quiet", *more]

    def killed(self, machine: str, shard: str, step: str, nth: int = 1) -> None:
        """Start *shard* on *machine*, and kill it as it takes *step* for the *nth* time."""
        words = [step, str(nth), *self.words(shard)]
        ran = finish(start(*words, cwd=self.folder, env=self.env(machine), module="torture.killed_remotely"))
        assert ran.code == -9, ran.err

    def lines(self, machine: str) -> list[int]:
        """The indexes of all lines that the common folder has."""
        ran = self.do(machine, "results", self.common, "--fields", "index")
        return sorted(json.loads(line)["index"] for line in ran.out.splitlines())


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Machines, and one endpoint for all of them."""
    with serving(write(tmp_path, KEYS)) as server:
        yield Machines(tmp_path, server)


def test_shards_are_read_in_place_and_gone_on_with_from_anywhere(machines: Machines) -> None:
    """Whoever has the URL hears what is missing, and with which command; a resume brings the rest, in order."""
    assert machines.do("one", *machines.words("1/3")).code == 0
    machines.killed("two", "2/3", "segment there, nobody told")
    said = machines.do("four", "status", machines.common)
    assert said.code == 0, said.err
    start_3 = (
        f"runner run {machines.job_file} --shard 3/3 --batch-id b --output-dir {machines.url}"
        f" --local {machines.server.url}"
    )
    assert said.out.splitlines()[-5:] == [
        f"  {machines.common}",
        "  3 shards: 1 missing, 1 unfinished, 1 ended",
        f"  shard 2/3 is unfinished: runner resume {machines.common}/shards/02-of-03",
        f"  shard 3/3 is missing: {start_3}",
        f"  or all of these here, one after another: runner resume {machines.common}",
    ]
    results = machines.do("four", "results", machines.common)
    assert results.err.splitlines()[-1] == f"note: not all is among these, shard 3/3 is missing: {start_3}"
    again = machines.do("four", *machines.words("1/3"))
    assert (again.code, again.err.splitlines()[0]) == (
        2,
        f"error: shard 1/3 of batch b has begun, in {machines.common}/shards/01-of-03",
    )
    resumed = machines.do("three", "resume", machines.common, "--format", "json")
    assert resumed.code == 0, resumed.err
    assert [one["standing"] for one in resumed.json["shards"]] == ["ended"] * 3
    assert resumed.json["shards"][1]["folder"] == f"{machines.common}/shards/02-of-03"
    assert max(machines.server.submits().values()) == 1
    assert machines.lines("four") == list(range(RUNS))
    page = machines.do("four", "report", machines.common)
    assert (page.code, page.out.splitlines()[1]) == (0, "  all 3 shards have ended")
    assert Path(page.out.splitlines()[0]).is_relative_to(machines.folder / "four")
    shown = machines.do("four", "show", "b", "7", "--output-dir", machines.url, "--format", "json").json
    assert shown["run"]["output"] == {"n": 7}
    for name in (machines.common, f"{machines.common}/shards/02-of-03"):
        assert machines.do("five", "resume", name, "--quiet").code == 0
    assert sum(machines.server.submits().values()) == RUNS


def test_a_shard_goes_on_where_nothing_of_it_is_and_refuses_others(machines: Machines) -> None:
    """What Kubernetes starts on another node: `--resume` goes on, and one that ended sends nothing."""
    machines.killed("one", "1/2", "reports there, contents not")
    shutil.rmtree(machines.folder / "one")
    assert machines.do("two", *machines.words("1/2", "--resume")).code == 0
    contents = machines.folder / "there/t/b/shards/01-of-02/contents.json"
    assert json.loads(contents.read_bytes())["unfinished"] == 0
    before = machines.server.submits()
    assert machines.do("three", *machines.words("1/2", "--resume")).code == 0
    assert machines.server.submits() == before
    other = machines.do("three", *machines.words("2/3"))
    assert (other.code, other.err) == (
        2,
        f"error: --shard 2/3: batch b has 2 shards, {machines.common}/shards/01-of-02 is one of them\n"
        "  help: write --shard NUMBER/2, or another --batch-id\n",
    )
    differs = machines.do("three", *machines.words("2/2", "--limit", "3"))
    assert (differs.code, differs.err.splitlines()[0]) == (
        2,
        f"error: shard 2/2 is not of one batch with shard 1/2 in {machines.common}/shards: their options differ",
    )
    contents.unlink()  # as if it had been killed right before
    assert machines.do("two", "status", machines.common).out.splitlines()[-4] == ("  2 shards: 1 missing, 1 unfinished")
    assert machines.do("three", *machines.words("1/2", "--resume")).code == 0
    assert contents.exists()


def test_shards_are_cancelled_and_one_that_runs_elsewhere_is_left_alone(machines: Machines) -> None:
    """Until somebody says that its process is dead."""
    machines.killed("one", "1/2", "all settled, the rest not there")
    lease = machines.folder / "there/t/b/shards/01-of-02/lease.json"
    told = json.loads(lease.read_bytes()) | {"renewed_at": time.time() - 20, "machine": "another"}
    lease.write_text(json.dumps(told))
    assert "  2 shards: 1 missing, 1 running" in machines.do("two", "status", machines.common).out.splitlines()
    refused = machines.do("two", "cancel", machines.common)
    assert (refused.code, refused.err.splitlines()[0]) == (
        5,
        f"error: {machines.common}/shards/01-of-02 is being run on another machine",
    )
    resumed = machines.do("two", "resume", machines.common, "--quiet")
    assert (resumed.code, resumed.err.splitlines()[0]) == (
        1,
        "shard 1/2 is left to the process that runs it; --take-over is for one that is dead",
    )
    ended = machines.do("two", "cancel", machines.common, "--take-over")
    assert ended.code == 0, ended.err
    assert machines.do("three", "status", machines.common).out.splitlines()[0] == "stopped: t b"


def test_an_id_of_shards_that_were_removed_is_free_again(machines: Machines) -> None:
    """What a machine still has of them speaks of a batch that nobody wants any more."""
    assert machines.do("one", *machines.words("1/1")).code == 0
    assert machines.do("two", "status", machines.common).code == 0
    shutil.rmtree(machines.folder / "there")
    gone = machines.do("two", "status", machines.common)
    assert (gone.code, gone.err.splitlines()[0]) == (2, f"error: no batch 'b/latest': {machines.url}/t holds none")
    assert machines.do("one", *machines.words("1/1")).code == 0
    assert set(machines.server.submits().values()) == {2}
    assert machines.lines("two") == list(range(RUNS))


def test_two_shards_on_s3_are_killed_and_go_on_with_nothing_left_here(tmp_path: Path) -> None:
    """Each started again as whatever queue it has would: by the same command, on a machine that has nothing."""
    with remote.s3() as env, serving(write(tmp_path, KEYS)) as server:
        machines = Machines(tmp_path, server, url=f"s3://{remote.BUCKET}/sharded", env=env)
        machines.killed("one", "1/2", "segment there, nobody told")
        machines.killed("two", "2/2", "results there, their segment not", 2)
        for machine in ("one", "two"):
            shutil.rmtree(tmp_path / machine)
        ran = [
            start(*machines.words(shard, "--resume"), cwd=tmp_path, env=machines.env(f"new-{shard[0]}"))
            for shard in ("1/2", "2/2")
        ]
        ended = [finish(one) for one in ran]
        assert [one.code for one in ended] == [0, 0], ended
        read = machines.do("three", "results", machines.common, "--fields", "index,attempts")
        assert (read.code, read.err) == (0, "")  # so no shard is missing, or unfinished
        lines = [json.loads(line) for line in read.out.splitlines()]
        assert sorted(line["index"] for line in lines) == list(range(RUNS))
        # Nothing was sent that nobody knows of.
        assert RUNS <= sum(server.submits().values()) <= sum(line["attempts"] for line in lines)
