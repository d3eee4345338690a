"""``runner watch``: the page of a batch in a browser, while the batch runs."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TextIO

from runner import batch, locations, runtime
from runner.batch import Folder
from runner.errors import EXIT_PASS
from runner.watching import Watching, made


def watch(name: str, *, output_dir: Path | None, port: int = 0, opens: bool = False, out: TextIO = sys.stdout) -> int:
    """
    Serve the page of the batch *name* on loopback until a signal comes; the batch itself is not touched.

    Raises:
        UsageError: there is no such batch, or *port* can't be had.
        RecordError: its ledger can't be read.
    """
    locations.check_is_here("watch", name, output_dir)
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    folder = batch.find(name, outputs)
    made(folder)  # what can't be read is said here, not in the browser
    return runtime.run(_watch(folder, port, opens, out))


async def _watch(folder: Folder, port: int, opens: bool, out: TextIO) -> int:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, over.set)
    async with Watching(folder, port=port) as watching:
        print(f"watching {folder.path.parent.name} {folder.id} at {watching.url}", file=out)
        print("Ctrl-C ends the watching, not the batch", file=out, flush=True)
        if opens:
            import webbrowser

            if not await asyncio.to_thread(webbrowser.open, watching.url):
                print("note: no browser can be opened here; open the address in one", file=sys.stderr)
        await over.wait()
    return EXIT_PASS
