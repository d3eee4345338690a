"""``runner report``: the page of a batch, live or ended, as one file."""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

from runner import batch, report, reports, shards_folder, shards_told
from runner.batch import Folder
from runner.durable import beside, replacing
from runner.errors import EXIT_PASS, UsageError
from runner.ledger import Ledger
from runner.page.document import render
from runner.shards_folder import Common
from runner.stdout import while_read
from runner.values import JsonObject, dump


def write_report(
    name: str,
    *,
    output_dir: Path | None,
    output: Path | None = None,
    opens: bool = False,
    form: str = "text",
    out: TextIO | None = None,
) -> int:
    """
    Write the page of the batch *name* to *output*, whole or not at all; None: to report.html in its folder.

    With ``junit`` or ``prometheus`` for *form* it is such a file instead, and None for *output* is stdout. ``text`` and
    ``json`` say what is printed beside the page: where it is, or the health report.

    Raises:
        UsageError: there is no such batch, or the file can't be written there.
    """
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    if (common := shards_folder.find(name, outputs)) is not None:
        return _of_shards(common, form, output, opens=opens, out=out or sys.stdout)
    folder = batch.find(name, outputs)
    if form in reports.NAMES:
        _other(folder, form, output, out or sys.stdout)
        return EXIT_PASS
    path = folder.report if output is None else checked(output.resolve(), folder)
    health, page = _made(folder, "" if path.parent == folder.path else os.path.relpath(folder.path, path.parent))
    put(path, page)
    with while_read():
        print(dump(health).decode() if form == "json" else path, file=out or sys.stdout)
    if opens:
        open_in_browser(path)
    return EXIT_PASS


def _of_shards(common: Common, form: str, output: Path | None, *, opens: bool, out: TextIO) -> int:
    """Write the page of all shards of *common* together, or what other programs read of them."""
    with shards_told.opened(common) as whole:
        path = None if output is None else checked(output.resolve(), whole.folder)
        if form in reports.NAMES:
            made = reports.render(form, whole.ledger, whole.folder, whole.health)
            if path is not None:
                put(path, made)
                return EXIT_PASS
            with while_read():
                print(made.decode(), end="", file=out)
            return EXIT_PASS
        path = path or whole.folder.report
        there = "" if path.parent == common.path else os.path.relpath(common.path, path.parent)
        like = common.there[0].manifest
        put(path, render(whole.ledger, whole.folder, whole.health, now=time.time(), there=there, manifest=like))
        with while_read():
            if form == "json":
                print(dump(shards_told.as_json(common, whole.health)).decode(), file=out)
            else:
                print("\n".join([str(path), *shards_told.said(common)]), file=out)
    if opens:
        open_in_browser(path)
    return EXIT_PASS


def _made(folder: Folder, there: str) -> tuple[JsonObject, bytes]:
    with Ledger.read_only(folder.ledger) as ledger:
        health = _health(ledger, folder)
        return health, render(ledger, folder, health, now=time.time(), there=there)


def _health(ledger: Ledger, folder: Folder) -> JsonObject:
    otherwise = "running" if batch.is_running(folder) else "unfinished"
    return report.fold(ledger, report.told(ledger, folder, verdict=otherwise))


def _other(folder: Folder, form: str, output: Path | None, out: TextIO) -> None:
    """Print what other programs read of a batch, or write it to *output*."""
    path = None if output is None else checked(output.resolve(), folder)
    with Ledger.read_only(folder.ledger) as ledger:
        made = reports.render(form, ledger, folder, _health(ledger, folder))
    if path is not None:
        put(path, made)
        return
    with while_read():
        print(made.decode(), end="", file=out)


def checked(path: Path, folder: Folder) -> Path:
    """
    *path*, to which something of the batch in *folder* is to be written.

    Raises:
        UsageError: it is another file of a batch, or no file at all.
    """
    is_kept = any((above / "ledger.sqlite").exists() for above in path.parents)
    if is_kept and path != folder.report:
        raise UsageError(
            f"{path} is in a batch's folder, whose files are the record of what ran",
            fix="name a file elsewhere with --output",
        )
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} can't be written: it is no regular file", fix="name a file with --output")
    return path


def put(path: Path, page: bytes) -> None:
    """
    Write *page* to *path*, whole or not at all.

    Raises:
        UsageError: it can't be written there.
    """
    # Not by `write_whole`: a live batch may write its own report in the same moment, and beside it.
    try:
        with replacing(path, beside(path)) as file:
            file.write(page)
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror or error}",
            fix="see that its folder is there and has room, or name another file with --output",
        ) from None


def open_in_browser(path: Path) -> None:
    """Show the file at *path* in a browser, or say that there is none."""
    import webbrowser

    if not webbrowser.open(path.as_uri()):
        print(f"note: no browser can be opened here; the report is {path}", file=sys.stderr)
