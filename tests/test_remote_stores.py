"""Stores: one behaviour, whatever keeps the objects; and a batch on a real S3 server, killed and gone on with."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import extras
from runner.errors import UsageError
from runner.remote.objects import Denied, Exists, Files, Missing, Objects, Store, open_objects
from runner.remote.reading import find
from torture import remote
from torture.processes import serving

RUNS = 16
KILLS = [("intent here, not there", 1), ("results there, their segment not", 2), ("segment there, nobody told", 2)]


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A real S3 server, found as the AWS tools find one."""
    with remote.s3() as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield env


@pytest.fixture(params=["file", "memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """Objects of each kind."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_objects(f"s3://{remote.BUCKET}/{tmp_path.name}")
    return open_objects(f"file://{tmp_path / 'there'}" if request.param == "file" else f"memory://{tmp_path.name}")


def test_objects_are_put_once_and_found_by_folder(objects: Objects, tmp_path: Path) -> None:
    """An object that is to be new is so for one of two writers: on that it rests that a run is paid for once."""
    assert objects.names("a") == {}
    assert objects.folders("a") == []
    objects.put("a/b/1", b"one", new=True)
    with pytest.raises(Exists):
        objects.put("a/b/1", b"two", new=True)
    local = tmp_path / "local"
    local.write_bytes(b"three" * 1000)
    with pytest.raises(Exists):
        objects.put_file("a/b/1", local, new=True)
    objects.put_file("a/c/2", local, new=True)
    assert objects.get("a/b/1") == b"one"
    objects.put("a/b/1", b"four")
    objects.get_file("a/b/1", local)
    assert local.read_bytes() == b"four"
    assert objects.names("a") == {"a/b/1": 4, "a/c/2": 5000}
    assert objects.folders("a") == ["b", "c"]
    objects.remove("a/b/1")
    objects.remove("a/b/1")
    for ask in (lambda: objects.get("a/b/1"), lambda: objects.get_file("a/b/1", local)):
        with pytest.raises(Missing):
            ask()
    assert objects.folders("a") == ["c"]


def test_a_bucket_that_is_not_there_is_a_refusal(s3: dict[str, str]) -> None:
    """Not something to wait for."""
    with pytest.raises(Denied, match="bucket does not exist"):
        open_objects("s3://nobody/there").put("a", b"")


@pytest.mark.parametrize("name", ["t", "t/latest", "t/20260823T101500Z-0a1b", "t/shards-of-mine"])
def test_who_reads_from_a_bucket_that_is_not_there_hears_its_name(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """That it holds no batch is true, and sends people looking for the wrong thing."""
    monkeypatch.setenv("RUNNER_CACHE_DIR", str(tmp_path))
    with pytest.raises(UsageError) as error:
        find(f"s3://nobody/there/{name}", None)
    assert error.value.message.endswith(" can't be used: The specified bucket does not exist: nobody")


def test_what_is_not_installed_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not ask for a remote folder never has to install anything."""
    with pytest.raises(UsageError) as unknown:
        open_objects("carrier-pigeon://loft")
    assert unknown.value.message == "carrier-pigeon://loft can't be used: Protocol not known: carrier-pigeon"
    monkeypatch.setattr(extras, "is_there", lambda library: False)
    with pytest.raises(UsageError) as caught:
        open_objects("s3://bucket/there")
    assert caught.value.message == "s3://bucket/there needs fsspec, which is not installed"
    assert caught.value.fix == "pip install 'runpod-runner[remote]'"
    assert isinstance(open_objects("file:///there"), Files)


def test_a_batch_that_is_killed_three_times_is_gone_on_with_from_s3_alone(
    s3: dict[str, str], forking: None, tmp_path: Path
) -> None:
    """Each time with nothing of it left here. `make remote` does so for every step, with more runs."""
    url = f"s3://{remote.BUCKET}/killed"
    path = remote.job_file(tmp_path, url, RUNS)
    with serving(path, env={"TORTURE_MARK": str(tmp_path)}) as server:
        reached = remote.live(tmp_path, path, server, s3, KILLS)
        lines = remote.told(tmp_path, url, s3)
        assert remote.wrong(lines, RUNS, remote.accepted(server, RUNS), remote.lost(tmp_path, url, s3)) == []
    assert reached == [step for step, _ in KILLS]
    there = open_objects(url)
    assert isinstance(there, Store)
    (name,) = (name for name in there.names("far") if name.endswith("/contents.json"))
    contents = json.loads(there.get(name))
    assert (contents["verdict"], contents["unfinished"]) == ("pass", 0)
    artifacts = [one for one in contents["objects"] if one["name"].startswith("artifacts/")]
    sizes = there.names(name.removesuffix("contents.json") + "artifacts")
    assert sorted(sizes.values()) == sorted(one["size_bytes"] for one in artifacts)
    assert len(artifacts) == RUNS
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"secret-of-the-store" in path.read_bytes()]
    assert left == []
