"""Make pictures of the report and of ``runner watch`` for the documentation: ``make screenshots``."""

import asyncio
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import browser
from made_batches import Shape, made
from terminal import ROOT

from runner import batch, report
from runner.batch import Folder
from runner.ledger import Ledger
from runner.page.document import write
from runner.watching import Watching

SIZES = {"desktop": (1280, 900, 1.0), "phone": (390, 844, 2.0)}


def main(out: Path, *, whole: bool) -> None:
    """Take every picture into the folder *out*; *whole* pages instead of what a window shows of them first."""
    program = browser.installed()
    if program is None:
        sys.exit("there is no Chromium; install Debian's package 'chromium'")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, browser.running(program, Path(folder) / "profile") as address:
        asyncio.run(_take(Path(folder), address, out, whole))


async def _take(folder: Path, address: str, out: Path, whole: bool) -> None:
    ended = made(folder / "ended")
    with Ledger.read_only(ended.ledger) as ledger:
        write(ledger, ended, report.fold(ledger, report.told(ledger, ended)), now=0.0)
    await _look(address, ended.report.as_uri(), out, "report", whole)
    now = time.time()
    live = made(folder / "live", Shape(start=now - 180, until_s=180, verdict=None))
    with batch.lock(live.path.parent, now=now) as held:
        held.runs(live)
        async with Watching(Folder(live.path)) as watching:
            await _look(address, watching.url, out, "watch", whole)


async def _look(address: str, url: str, out: Path, name: str, whole: bool) -> None:
    for size, (width, height, scale) in SIZES.items():
        for dark in (False, True):
            async with browser.tab(address) as page:
                await page.look(width=width, height=height, dark=dark, scale=scale)
                await page.go(url)
                path = out / f"{name}-{size}-{'dark' if dark else 'light'}.png"
                await page.screenshot(path, whole=whole)
                print(path)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        Path(next((word for word in words if not word.startswith("-")), ROOT / "docs/screenshots")),
        whole="--whole" in words,
    )
