"""Artifacts: what they are made of, whose name it is, and what a kill or a full disk leaves behind."""

import asyncio
import base64
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from happened import a_run, intended, new_store

from runner.artifacts import ArtifactError, Artifacts, Wanted
from runner.errors import RecordError
from runner.fetch import Fetcher, FetchError
from runner.ledger import Ledger
from runner.record import Recorder
from runner.store import Store

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TEXT = base64.b64encode(PNG).decode()


class FakeFetcher:
    """Gives what *pages* holds, as *media_type*; *asked_bytes* are the limits it was given."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.media_type: str | None = None
        self.asked_bytes: list[int] = []

    async def fetch(self, url: str, to: Path, *, loopback: bool, max_bytes: int) -> str | None:
        self.asked_bytes.append(max_bytes)
        if url not in self.pages:
            raise FetchError("https://example.com/x: HTTP 404")
        to.write_bytes(self.pages[url])
        return self.media_type


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = new_store(tmp_path)
    for number in range(3):
        store.write([intended(a_run(f"k{number}", index=number))])
    yield store
    store.close()


@pytest.fixture
async def recorder(store: Store) -> AsyncIterator[Recorder]:
    async with Recorder(store) as recorder:
        yield recorder


@pytest.fixture
def made(tmp_path: Path, recorder: Recorder) -> Artifacts:
    return Artifacts(tmp_path, recorder, cast(Fetcher, FakeFetcher()))


def files(folder: Path) -> list[str]:
    """Every file below the folder of artifacts."""
    root = folder / "artifacts"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def make(artifacts: Artifacts, key: str, *wanted: tuple[str, str, Any]) -> list[tuple[str, str, int]]:
    """Make them; path, digest and size of each."""
    claims = await artifacts.make(key, 1, [Wanted(*one) for one in wanted], loopback=False)
    return [(one.path, one.sha256, one.size_bytes) for one in claims]


async def test_files_are_whole_and_known_by_their_digest(made: Artifacts, tmp_path: Path) -> None:
    """Whoever has the digest can tell that a file is the one that was paid for."""
    told = await make(made, "k0", ("images/0.png", "base64", TEXT), ("0.json", "json", {"n": 1}))
    assert told == [
        ("artifacts/images/0.png", hashlib.sha256(PNG).hexdigest(), len(PNG)),
        ("artifacts/0.json", hashlib.sha256(b'{"n":1}\n').hexdigest(), 8),
    ]
    assert (tmp_path / "artifacts/images/0.png").read_bytes() == PNG
    assert files(tmp_path) == ["0.json", "images/0.png"]


async def test_a_url_is_fetched(recorder: Recorder, tmp_path: Path) -> None:
    """RunPod's public endpoints give their media as URLs."""
    fetcher = FakeFetcher()
    fetcher.pages["https://example.com/a.png"] = PNG
    artifacts = Artifacts(tmp_path, recorder, cast(Fetcher, fetcher))
    assert (await make(artifacts, "k0", ("a.png", "url", "https://example.com/a.png")))[0][2] == len(PNG)
    with pytest.raises(ArtifactError, match=r"^https://example.com/x: HTTP 404$"):
        await make(artifacts, "k1", ("b.png", "url", "https://example.com/b.png"))
    with pytest.raises(ArtifactError, match=r"^expected a URL, found 3$"):
        await make(artifacts, "k1", ("b.png", "url", 3))
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize("path", ["a.png", "A.PNG"], ids=["the same", "but for its case"])
async def test_another_run_s_name_is_not_taken(made: Artifacts, tmp_path: Path, path: str) -> None:
    """The second file would silently take the place of the first, on some machines at least."""
    await make(made, "k0", ("a.png", "base64", TEXT))
    with pytest.raises(ArtifactError) as caught:
        await make(made, "k1", ("b.png", "text", "b"), (path, "text", "other"))
    assert str(caught.value) == "artifacts/a.png is an artifact of run 0 of job 'photos' already"
    assert files(tmp_path) == ["a.png"]
    assert (tmp_path / "artifacts/a.png").read_bytes() == PNG


async def test_the_same_run_takes_its_name_again(made: Artifacts, tmp_path: Path) -> None:
    """After a kill it is followed again, and a second attempt may well have another output."""
    await make(made, "k0", ("a.txt", "text", "first"))
    await make(made, "k0", ("a.txt", "text", "second"))
    assert (tmp_path / "artifacts/a.txt").read_text() == "second"


async def test_many_runs_that_want_one_name_at_once_get_it_once(made: Artifacts, tmp_path: Path) -> None:
    """The ledger decides, one after the other."""
    tries = await asyncio.gather(
        *(make(made, f"k{n}", ("a.txt", "text", f"by {n}")) for n in range(3)), return_exceptions=True
    )
    assert sorted(isinstance(one, ArtifactError) for one in tries) == [False, True, True]
    assert files(tmp_path) == ["a.txt"]


async def test_two_artifacts_of_a_run_need_two_names(made: Artifacts, tmp_path: Path) -> None:
    """The paths are templates, so only the run shows it."""
    with pytest.raises(ArtifactError) as caught:
        await make(made, "k0", ("a.txt", "text", "a"), ("A.txt", "text", "b"))
    assert str(caught.value) == "two artifacts of this run would have the path 'artifacts/A.txt'"
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("x" * 300, "can't be a file: file name too long", id="too long"),
        pytest.param("a.txt/b.txt", "can't be a file: a part of the path is a file already", id="below a file"),
        pytest.param("folder", "can't be a file: is a directory", id="a folder"),
    ],
)
async def test_a_path_that_can_t_be_a_file_fails_the_run_alone(
    made: Artifacts, tmp_path: Path, path: str, said: str
) -> None:
    """It comes of the row or the output, so it is no trouble of the disk."""
    await make(made, "k0", ("a.txt", "text", "a"), ("folder/b.txt", "text", "b"))
    with pytest.raises(ArtifactError) as caught:
        await make(made, "k1", (path, "text", "other"))
    assert str(caught.value).endswith(said)
    assert files(tmp_path) == ["a.txt", "folder/b.txt"]


async def test_a_full_disk_is_the_batch_s_trouble(
    made: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is paid for is followed again once there is room: no run fails because of it."""

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError) as caught:
        await make(made, "k0", ("a.txt", "text", "a"))
    assert caught.value.message.endswith("can't be written: No space left on device")
    assert files(tmp_path) == []


async def test_what_an_earlier_process_left_without_a_name_goes(made: Artifacts, tmp_path: Path) -> None:
    """A kill may come before a file has its name."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / ".k0.0.part").write_text("half")
    made.clear()
    assert files(tmp_path) == []


async def test_the_ledger_knows_the_files_of_a_run(made: Artifacts, store: Store) -> None:
    """With digest and size, so that a copy of the folder can be checked."""
    await make(made, "k0", ("b.txt", "text", "b"), ("a.txt", "text", "a"))
    with Ledger.read_only(store.ledger.path) as ledger:
        assert [(one.path, one.size_bytes) for one in ledger.artifacts("k0")] == [
            ("artifacts/a.txt", 1),
            ("artifacts/b.txt", 1),
        ]


async def test_an_artifact_over_the_limit_is_refused(
    made: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One output must not fill the disk."""
    monkeypatch.setattr("runner.artifacts.MOST_BYTES", 3)
    with pytest.raises(ArtifactError) as caught:
        await make(made, "k0", ("a.txt", "text", "abcd"))
    assert str(caught.value) == "an artifact of 4 B, and 3 B is the most"
    assert files(tmp_path) == []


async def test_an_artifact_may_have_a_limit_of_its_own(recorder: Recorder, tmp_path: Path) -> None:
    """And a download, too, which is told where to stop."""
    fetcher = FakeFetcher()
    fetcher.pages["https://example.com/a"] = b"abc"
    artifacts = Artifacts(tmp_path, recorder, cast(Fetcher, fetcher))
    allowed = [Wanted("a", "url", "https://example.com/a", most_bytes=3), Wanted("b", "text", "abc", most_bytes=3)]
    assert [one.size_bytes for one in await artifacts.make("k0", 1, allowed, loopback=False)] == [3, 3]
    assert fetcher.asked_bytes == [3]
    with pytest.raises(ArtifactError, match=r"^an artifact of 4 B, and 3 B is the most$"):
        await artifacts.make("k1", 1, [Wanted("c", "text", "abcd", most_bytes=3)], loopback=False)


async def test_the_files_of_a_run_have_a_limit_together(
    made: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of ten thousand URLs must not fill the disk."""
    monkeypatch.setattr("runner.artifacts.MOST_BYTES_OF_A_RUN", 5)
    with pytest.raises(ArtifactError, match=r"^the artifacts of this run come to more than 5 B$"):
        await make(made, "k0", ("a", "text", "abc"), ("b", "text", "abc"))
    assert files(tmp_path) == []


async def test_a_path_may_follow_the_content(recorder: Recorder, tmp_path: Path) -> None:
    """Whatever the content is said to be."""
    fetcher = FakeFetcher()
    fetcher.pages["https://example.com/a.exe"] = PNG
    fetcher.media_type = "application/pdf"
    artifacts = Artifacts(tmp_path, recorder, cast(Fetcher, fetcher))
    lying = f"data:video/mp4;base64,{TEXT}"
    given = [("url", "https://example.com/a.exe"), ("data_uri", lying), ("json", 3), ("text", "3"), ("base64", "AAEC")]
    wanted = [Wanted(f"{n}.bin", *one, by_type=f"{n}.{{}}".format) for n, one in enumerate(given)]
    claims = await artifacts.make("k0", 1, wanted, loopback=False)
    assert [claim.path for claim in claims] == [
        f"artifacts/{name}" for name in ("0.png", "1.png", "2.json", "3.txt", "4.bin")
    ]
    assert files(tmp_path) == ["0.png", "1.png", "2.json", "3.txt", "4.bin"]


async def test_a_message_says_which_item_it_is_about(made: Artifacts, tmp_path: Path) -> None:
    """One of forty images is broken."""
    wanted = [Wanted(f"{n}", "base64", "AAEC" if n < 3 else "!", of=f"artifacts.0: item {n}: ") for n in range(5)]
    with pytest.raises(ArtifactError) as caught:
        await made.make("k0", 1, wanted, loopback=False)
    assert str(caught.value) == "artifacts.0: item 3: this is not base64: character '!' at 1"
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("größe.png", "GRÖSSE.png"), ("e\u0301.png", "é.png"), ("ﬁle.png", "FILE.png"), ("Σ.png", "ς.png")],
    ids=["a letter that has two", "an accent of its own", "a ligature", "two forms of a letter"],
)
async def test_names_that_any_machine_takes_for_the_same_are_the_same(
    made: Artifacts, tmp_path: Path, one: str, other: str
) -> None:
    """Copied to a Mac or to Windows, the one would be written over the other."""
    with pytest.raises(ArtifactError, match="two artifacts of this run would have the path"):
        await make(made, "k0", (one, "text", "a"), (other, "text", "b"))
    await make(made, "k1", (one, "text", "a"))
    with pytest.raises(ArtifactError, match="is an artifact of run 1 of job 'photos' already"):
        await make(made, "k2", (other, "text", "b"))
    assert files(tmp_path) == [one]


async def test_of_files_that_can_t_all_have_their_names_none_stays(made: Artifacts, tmp_path: Path) -> None:
    """Items name themselves: one may be below another."""
    with pytest.raises(ArtifactError, match=r"^'artifacts/x/y' can't be a file: a part of the path is a file already$"):
        await make(made, "k0", ("x", "text", "a"), ("x/y", "text", "b"))
    assert files(tmp_path) == []


async def test_the_downloads_of_a_run_have_a_time_together(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of slow URLs would keep a lane for days."""

    class Slow(FakeFetcher):
        async def fetch(self, url: str, to: Path, *, loopback: bool, max_bytes: int) -> str | None:
            await asyncio.Event().wait()
            return None

    monkeypatch.setattr("runner.artifacts.DOWNLOADS_S", 0.01)
    artifacts = Artifacts(tmp_path, recorder, cast(Fetcher, Slow()))
    with pytest.raises(ArtifactError, match=r"^the downloads of this run took longer than 10ms$"):
        await make(artifacts, "k0", ("a", "url", "https://example.com/a"))
