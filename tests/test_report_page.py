"""The report as a page: what it says, how large it is, and what a real browser makes of it."""

import re
import shutil
from pathlib import Path

import browser
import pytest
from browser import Tab
from made_batches import Shape, made

from runner import report
from runner.batch import Folder
from runner.ledger import Ledger
from runner.page.document import render, write
from runner.page.timelines import MOST_BARS

PHONE = {"width": 375, "height": 800}
MOST_BYTES = 300_000


def written(folder: Folder) -> str:
    """The page of the batch in *folder*, which it has from now on."""
    with Ledger.read_only(folder.ledger) as ledger:
        health = report.fold(ledger, report.told(ledger, folder, verdict="unfinished"))
        write(ledger, folder, health, now=0.0)
    return folder.report.read_text()


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A batch of 600 runs with its report."""
    folder = made(tmp_path_factory.mktemp("usual"))
    written(folder)
    return folder


SECTIONS = [
    *("endpoints", "jobs", "money", "times", "flow", "workers", "timeline"),
    *("slowest", "failures", "matrix", "files", "next", "provenance"),
]


def test_a_report_has_every_part_in_the_order_in_which_people_ask(usual: Folder) -> None:
    """First what it came to and why, then what it cost, then everything else."""
    page = usual.report.read_text()
    assert re.findall(r'<section id="([a-z]+)"', page) == SECTIONS
    assert page.index("thresholds") < page.index('id="endpoints"')


def test_a_report_asks_for_nothing_from_anywhere(usual: Folder) -> None:
    """It is sent by mail and opened on a train."""
    page = usual.report.read_text()
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "<script" not in page
    assert re.findall(r"default-src &#x27;none&#x27;", page) == ["default-src &#x27;none&#x27;"]
    assert {path.split("/")[1] for path in re.findall(r'src="([^"]+)"', page)} == {"artifacts"}


def test_each_chart_has_words_and_numbers_beside_it(usual: Folder) -> None:
    """For who can't see it, and for who wants to calculate."""
    page = usual.report.read_text()
    charts = page.count("<figure")
    assert charts == page.count("<summary>Numbers</summary>") >= 8
    titled = re.findall(r'aria-labelledby="(title-[a-z0-9-]+) (desc-[a-z0-9-]+)"', page)
    assert all(f'id="{one}"' in page for pair in titled for one in pair)
    identified = re.findall(r'id="([^"]+)"', page)
    assert len(identified) == len(set(identified))


@pytest.mark.parametrize("runs", [1_000, 10_000])
def test_a_report_of_many_runs_stays_small(tmp_path: Path, runs: int) -> None:
    """Mail takes it, and a phone opens it."""
    page = written(made(tmp_path, Shape(runs=runs, in_flight=150, workers=24, execution_s=1.0)))
    assert len(page.encode()) < MOST_BYTES
    drawn = re.findall(r'<div class="rows".*?</figure>', page, re.DOTALL)[0]
    assert drawn.count("M") <= 4 * MOST_BARS if runs <= MOST_BARS else drawn.count("M") <= MOST_BARS


def test_a_report_stays_small_whatever_texts_are_in_it(tmp_path: Path) -> None:
    """A text of signs that must be escaped takes six times its room."""
    wordy = dict.fromkeys(("message", "traceback", "worker", "output"), "<'&\">" * 3_000)
    shape = Shape(runs=2_000, failing=0.5, words=wordy | {"artifact": "<'&\">" * 20 + "{}.png"}, pictures=200)
    assert len(written(made(tmp_path, shape)).encode()) < MOST_BYTES


def test_a_batch_without_runs_has_a_report(tmp_path: Path) -> None:
    """A night without new rows is no failure."""
    page = written(made(tmp_path, Shape(runs=0, verdict="pass")))
    assert "there was nothing to do" in page
    assert re.findall(r'<section id="([a-z]+)"', page) == ["endpoints", "jobs", "money", "next", "provenance"]


def test_a_batch_that_was_cut_off_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    """Its process is gone, and nobody knows when that was."""
    folder = made(tmp_path, Shape(verdict=None, until_s=60.0))
    page = written(folder)
    assert "no process carries the batch on" in page
    assert f"runner resume {folder.path}" in page


def test_the_same_batch_has_the_same_page(usual: Folder) -> None:
    """So that two of them can be compared."""
    with Ledger.read_only(usual.ledger) as ledger:
        health = report.fold(ledger, report.told(ledger, usual))
        assert render(ledger, usual, health, now=1.0) == usual.report.read_bytes()


# In a browser


async def looked_at(page: Tab, folder: Folder, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
    """Open the report in *folder* in a window or on a phone."""
    await page.look(width=width, height=height, dark=dark)
    await page.go(folder.report.as_uri())


async def test_a_browser_has_nothing_to_complain_of(address: str, usual: Folder) -> None:
    """No error in the console, no request but for the pictures beside it, and those are shown."""
    async with browser.tab(address) as page:
        await looked_at(page, usual)
        assert page.said == []
        others = [url for url in page.asked if not url.startswith((usual.path / "artifacts").as_uri())]
        assert others == [usual.report.as_uri()]
        await page.evaluate("document.querySelector('.pictures').scrollIntoView()")
        await page.until("document.querySelector('.pictures img').naturalWidth === 96")


async def test_every_chart_is_drawn(address: str, usual: Folder) -> None:
    """A chart of no height, or one whose style was refused, says nothing."""
    async with browser.tab(address) as page:
        await looked_at(page, usual)
        flat = """[...document.querySelectorAll("figure svg:not(.swatch)")].filter(one =>
            one.getBoundingClientRect().width < 200 || one.getBoundingClientRect().height < 4 ||
            (one.querySelector("path.fill") && !one.querySelector("path.fill").getBBox().height)).length"""
        assert await page.evaluate(flat) == 0
        assert await page.evaluate("document.querySelectorAll('figure svg path.fill').length") >= 20
        fill = "getComputedStyle(document.querySelector('#flow path.execution')).fill"
        assert await page.evaluate(fill) == "rgb(52, 112, 196)"


@pytest.mark.parametrize("width", [320, 375, 768])
async def test_a_phone_never_scrolls_sideways(address: str, usual: Folder, width: int) -> None:
    """Also with everything unfolded."""
    async with browser.tab(address) as page:
        await looked_at(page, usual, width=width, height=800)
        for _ in range(2):
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


async def test_dark_and_light_differ_and_can_be_read(address: str, usual: Folder) -> None:
    """The page follows the system; the words keep the contrast that WCAG asks for, 4.5 to 1."""
    contrast = """(() => {
        const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(part => part / 255)
            .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b; };
        const ground = one => { for (; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if (!colour.endsWith(", 0)")) return colour; } };
        const words = "h1,h2,p,td,th,dt,code,pre,figcaption,.verdict,.tag,.note,b,summary";
        const ratios = [...document.querySelectorAll(words)]
            .filter(one => one.textContent.trim() && one.getClientRects().length)
            .map(one => [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a))
            .map(([high, low]) => (high + .05) / (low + .05));
        return Math.min(...ratios); })()"""
    grounds = []
    for dark in (False, True):
        async with browser.tab(address) as page:
            await looked_at(page, usual, dark=dark)
            assert await page.evaluate(contrast) >= 4.5
            grounds.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(246, 247, 249)", "rgb(16, 19, 24)"]


async def test_a_report_works_without_scripts(address: str, usual: Folder) -> None:
    """It has none: folds are the browser's own."""
    async with browser.tab(address, scripts=False) as page:
        await looked_at(page, usual)
        assert page.said == []
        assert await page.evaluate("document.querySelectorAll('section').length") == len(SECTIONS)


HOSTILE = (
    "</title></style></script></pre></svg><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<svg onload=alert(3)><a href='javascript:alert(4)'>x</a>\u202e\"' onmouseover='alert(5)' {{ 7 * 7 }}"
)


async def test_what_a_model_says_stands_as_text(address: str, tmp_path: Path) -> None:
    """Outputs, errors, tracebacks, names of jobs, workers and files: none of them runs, none leaves its place."""
    words = dict.fromkeys(("job", "worker", "message", "traceback", "output", "host"), HOSTILE)
    folder = made(tmp_path, Shape(runs=200, failing=0.3, pictures=4, words=words | {"artifact": "a<b>'\"#?%20{}.png"}))
    written(folder)
    async with browser.tab(address) as page:
        await looked_at(page, folder)
        await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.dialogs == []
        assert page.said == []
        assert (
            await page.evaluate("document.querySelectorAll('script, [onload], [onerror], [onmouseover]').length") == 0
        )
        assert await page.evaluate("document.querySelectorAll('a[href^=javascript]').length") == 0
        assert await page.evaluate("document.querySelectorAll('style').length") == 1
        shown = await page.evaluate("document.querySelector('#failures pre').textContent")
        assert shown == f"OutOfMemoryError: {HOSTILE}".replace("\u202e", "")
        titles = await page.evaluate("[...document.querySelectorAll('#timeline title')].map(one => one.textContent)")
        assert any("<script>alert(1)</script>" in title for title in titles)
        await page.evaluate("document.querySelector('.pictures').scrollIntoView()")
        await page.until("document.querySelector('.pictures img').naturalWidth === 96")


async def test_a_report_can_be_printed(address: str, usual: Folder) -> None:
    """On paper nothing folds, and it is light."""
    async with browser.tab(address) as page:
        await looked_at(page, usual, dark=True)
        dark = {"name": "prefers-color-scheme", "value": "dark"}
        await page.call("Emulation.setEmulatedMedia", media="print", features=[dark])
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        shown = "getComputedStyle(document.querySelector('.numbers')).display"
        assert await page.evaluate(shown) == "none"
        printed = await page.call("Page.printToPDF")
        assert len(printed["data"]) > 10_000


async def test_a_report_elsewhere_finds_its_pictures(address: str, usual: Folder, tmp_path: Path) -> None:
    """A copy in the batch's place of files stays whole: links are relative."""
    moved = Folder(Path(shutil.copytree(usual.path, tmp_path / "moved here" / usual.path.name)))
    async with browser.tab(address) as page:
        await looked_at(page, moved)
        await page.evaluate("document.querySelector('.pictures').scrollIntoView()")
        await page.until("document.querySelector('.pictures img').naturalWidth === 96")
