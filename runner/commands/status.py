"""``runner status``: where a batch stands, live or ended, without disturbing it."""

import sys
from pathlib import Path
from shlex import quote
from typing import TextIO

from runner import batch, locations, report, shards_folder, shards_told
from runner.errors import EXIT_PASS
from runner.ledger import Ledger
from runner.stdout import while_read
from runner.summary import summary
from runner.values import dump


def status(name: str, *, output_dir: Path | None, as_json: bool = False, out: TextIO = sys.stdout) -> int:
    """
    Print where the batch *name* stands, from its ledger.

    Raises:
        UsageError: there is no such batch.
    """
    outputs = batch.outputs_root(Path.cwd() / "x", dir_in_file=None, output_dir=output_dir)
    if (common := shards_folder.find(name, outputs)) is not None:
        with shards_told.opened(common) as whole, while_read():
            health = shards_told.as_json(common, whole.health)
            print(dump(health).decode() if as_json else shards_told.as_text(common, whole.health), file=out)
        return EXIT_PASS
    folder = batch.find(name, outputs)
    with Ledger.read_only(folder.ledger) as ledger:
        alive = batch.is_running(folder)
        health = report.fold(ledger, report.told(ledger, folder, verdict="running" if alive else "unfinished"))
    with while_read():
        if as_json:
            print(dump(health).decode(), file=out)
            return EXIT_PASS
        print(summary(health, locations.shown(folder.path)), file=out)
        if health["batch"]["pending"] and not alive:
            print(f"  to go on with it: runner resume {quote(locations.shown(folder.path))}", file=out)
    return EXIT_PASS
