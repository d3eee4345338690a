"""``runner report`` and ``runner watch``: the page as a file, and on loopback while a batch runs."""

import asyncio
import io
import json
import signal
import webbrowser
from pathlib import Path

import aiohttp
import browser
import pytest
from made_batches import Shape, made
from terminal import finish, runner, start, wait_until

from runner.batch import Folder
from runner.commands.report import write_report
from runner.errors import UsageError
from runner.watching import Watching


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A small batch that has ended, without a report."""
    return made(tmp_path / "batches", Shape(runs=40, pictures=3))


def test_a_batch_that_ends_leaves_its_report(tmp_path: Path) -> None:
    """Whoever comes in the morning opens it."""
    (tmp_path / "echo.py").write_text("def handler(job):\n    return job['input']\n")
    (tmp_path / "echo.yaml").write_text(
        "version: 1\nname: echo\nendpoints: {local: {handler: 'echo.py:handler'}}\n"
        "jobs: {greet: {endpoint: local, input: {text: hi}}}\n"
    )
    assert runner("run", "echo.yaml", "--quiet", cwd=tmp_path).code == 0
    page = (tmp_path / "batches/echo/latest/report.html").read_text()
    assert "The one run succeeded." in page
    assert page.endswith("</html>\n")


def test_the_command_writes_the_page_and_says_where(folder: Folder, tmp_path: Path) -> None:
    """Also of a batch that an older version has run, or that was cut off before its end."""
    ran = runner("report", "horses", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert (ran.code, ran.out, ran.err) == (0, f"{folder.report}\n", "")
    assert folder.report.read_bytes().startswith(b"<!doctype html>")


def test_the_command_prints_the_health_report_as_json(folder: Folder, tmp_path: Path) -> None:
    """The object of health.json and nothing else, for programs."""
    ran = runner("report", folder.path, "--format", "json", cwd=tmp_path)
    assert ran.code == 0
    assert json.loads(ran.out)["batch"]["runs"] == 40
    assert folder.report.exists()


def test_a_report_elsewhere_leads_back_to_the_files(folder: Folder, tmp_path: Path) -> None:
    """Pictures are not copied."""
    elsewhere = tmp_path / "out" / "page.html"
    elsewhere.parent.mkdir()
    assert write_report(str(folder.path), output_dir=None, output=elsewhere, out=io.StringIO()) == 0
    page = elsewhere.read_text()
    assert f'src="../batches/horses/{folder.id}/artifacts/images/' in page
    assert not folder.report.exists()
    assert [path.name for path in elsewhere.parent.iterdir()] == ["page.html"]


def test_a_report_never_takes_the_place_of_a_record(folder: Folder) -> None:
    """A slip with --output must not cost the results."""
    before = folder.results.read_bytes()
    with pytest.raises(UsageError) as caught:
        write_report(str(folder.path), output_dir=None, output=folder.results)
    assert caught.value.message == f"{folder.results} is in a batch's folder, whose files are the record of what ran"
    assert folder.results.read_bytes() == before


def test_a_report_that_can_not_be_written_is_said(folder: Folder) -> None:
    """And nothing is left beside it."""
    folder.report.mkdir()
    before = sorted(path.name for path in folder.path.iterdir())
    with pytest.raises(UsageError) as caught:
        write_report(str(folder.path), output_dir=None)
    assert caught.value.message == f"{folder.report} can't be written: Is a directory"
    assert sorted(path.name for path in folder.path.iterdir() if "sqlite-" not in path.name) == before


def test_a_folder_that_is_gone_is_said(folder: Folder, tmp_path: Path) -> None:
    """Whole, and nothing is left beside it."""
    missing = tmp_path / "nowhere" / "page.html"
    with pytest.raises(UsageError) as caught:
        write_report(str(folder.path), output_dir=None, output=missing)
    assert caught.value.message == f"{missing} can't be written: No such file or directory"


def test_a_report_opens_in_the_browser(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file, by its own path."""
    opened: list[str] = []

    def opens(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", opens)
    assert write_report(str(folder.path), output_dir=None, opens=True, out=io.StringIO()) == 0
    assert opened == [folder.report.as_uri()]


def test_where_there_is_no_browser_the_path_is_said(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a server, over SSH: the report is written all the same."""
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert write_report(str(folder.path), output_dir=None, opens=True, out=io.StringIO()) == 0
    assert capsys.readouterr().err == f"note: no browser can be opened here; the report is {folder.report}\n"


# Watching


async def test_only_who_knows_the_address_sees_the_page(folder: Folder) -> None:
    """Others on this machine reach the port, and a web page may have a name that leads to it."""
    async with Watching(folder) as watching, aiohttp.ClientSession() as session:
        root = watching.url.rsplit("/", 2)[0]
        port = root.rsplit(":", 1)[1]
        seen = {}
        for name, url, host in (
            ("right", watching.url, None),
            ("localhost", watching.url, f"localhost:{port}"),
            ("no token", f"{root}/", None),
            ("wrong token", f"{root}/{'x' * 22}/", None),
            ("rebound name", watching.url, f"evil.example:{port}"),
            ("other port", watching.url, "127.0.0.1:1"),
        ):
            async with session.get(url, headers={} if host is None else {"Host": host}) as answer:
                seen[name] = answer.status
    assert seen == {
        "right": 200,
        "localhost": 200,
        "no token": 404,
        "wrong token": 404,
        "rebound name": 404,
        "other port": 404,
    }


async def test_files_are_served_as_pictures_or_to_be_kept(folder: Folder) -> None:
    """What a model made never runs as a page of ours, and nothing but artifacts is served."""
    (folder.path / "artifacts" / "page.html").write_text("<script>alert(1)</script>")
    (folder.path / "artifacts" / "out").symlink_to(folder.path.parent)
    picture = next((folder.path / "artifacts/images").iterdir()).name
    async with Watching(folder) as watching, aiohttp.ClientSession() as session:

        async def kind(path: str) -> tuple[int, str, str | None]:
            async with session.get(watching.url + path) as answer:
                return answer.status, answer.content_type, answer.headers.get("Content-Disposition")

        assert await kind(f"artifacts/images/{picture}") == (200, "image/png", None)
        assert await kind("artifacts/page.html") == (200, "application/octet-stream", "attachment")
        for missing in (
            "artifacts/none.png",
            "artifacts/..%2fmanifest.json",
            f"artifacts/out/{folder.id}/manifest.json",
        ):
            assert (await kind(missing))[0] == 404
        assert (await kind("manifest.json"))[0] == 404


async def test_a_ledger_that_can_not_be_read_is_said(folder: Folder) -> None:
    """The watching goes on: it may be there again."""
    async with Watching(folder) as watching, aiohttp.ClientSession() as session:
        folder.manifest.rename(folder.path / "aside")
        async with session.get(watching.url) as answer:
            assert answer.status == 503
            assert "manifest.json can't be read" in await answer.text()
        (folder.path / "aside").rename(folder.manifest)
        async with session.get(watching.url) as answer:
            assert answer.status == 200


async def test_a_port_that_is_taken_is_said(folder: Folder) -> None:
    """Two watchers can't have one port."""
    async with Watching(folder) as watching:
        port = int(watching.url.split(":")[2].split("/")[0])
        with pytest.raises(UsageError) as caught:
            async with Watching(folder, port=port):
                pass
    assert caught.value.message == f"can't listen on 127.0.0.1 port {port}: Address already in use"


HANDLER = """\
import pathlib, time
def handler(job):
    while not (pathlib.Path(__file__).parent / "go").exists():
        time.sleep(0.02)
    return job["input"]
"""


async def test_a_watched_page_follows_the_batch_to_its_end(address: str, tmp_path: Path) -> None:
    """It shows what is there, reads itself anew, keeps what was unfolded, and rests when the batch is over."""
    (tmp_path / "wait.py").write_text(HANDLER)
    (tmp_path / "wait.yaml").write_text(
        "version: 1\nname: wait\nendpoints: {local: {handler: 'wait.py:handler', workers: 2}}\n"
        "jobs: {greet: {endpoint: local, input: {text: hi}, rows: {matrix: {n: [1, 2, 3, 4]}}}}\n"
    )
    running = start("run", "wait.yaml", "-v", cwd=tmp_path)
    try:
        latest = tmp_path / "batches/wait/latest"
        await asyncio.to_thread(wait_until, latest.exists, "the batch to begin")
        watcher = start("watch", "wait", cwd=tmp_path)
        assert watcher.stdout is not None
        said = await asyncio.to_thread(watcher.stdout.readline)
        url = said.split()[-1]
        async with browser.tab(address) as page:
            await page.go(url)
            await page.until("document.querySelector('.verdict').textContent === 'running'")
            await page.evaluate("document.getElementById('numbers-in-flight').open = true")
            (tmp_path / "go").touch()
            await page.until("document.querySelector('main').dataset.live === 'no'")
            assert await page.evaluate("document.querySelector('.verdict').textContent") == "pass"
            assert await page.evaluate("document.getElementById('numbers-in-flight').open")
            assert await page.evaluate("document.title.startsWith('pass: wait')")
            assert page.said == []
            assert {asked.split("?")[0] for asked in page.asked} == {url}
    finally:
        (tmp_path / "go").touch()
        ran = await asyncio.to_thread(finish, running)
    assert ran.code == 0
    watcher.send_signal(signal.SIGINT)
    assert (await asyncio.to_thread(finish, watcher)).code == 0
