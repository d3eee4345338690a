"""
Ways to break the engine that the disk prefixes must notice: without a sync.

The engine is copied to a temporary folder and broken there; some moments of one batch are replayed with it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from torture.mutants import Mutation

ROOT = Path(__file__).parent.parent
SEED, MOST = 1, 250

MUTATIONS = (
    Mutation(
        "a line is not synced",
        "store.py",
        (
            (
                "                os.fdatasync(self._file)\n        self._end = offset\n",
                "                pass\n        self._end = offset\n",
            ),
        ),
    ),
    Mutation("commits are not synced", "database.py", (("PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),)),
    Mutation(
        "an artifact is not synced",
        "artifacts.py",
        (("        file.flush()\n        os.fsync(file.fileno())\n", "        file.flush()\n"),),
    ),
    Mutation("names are not synced", "durable.py", (("        os.fsync(file)\n", "        pass\n"),)),
)

AS_IT_IS = "as it is, prefixes"
"""Of this nothing must be noticed, or the others would show nothing."""

NAMES = (*(one.name for one in MUTATIONS), AS_IT_IS)


def noticed(name: str) -> str | None:
    """
    What the prefixes say of the engine with the mutation *name* of `NAMES`; None when they find nothing wrong.

    Takes about half a minute.

    Raises:
        LookupError: the text to change is not there exactly once, so nothing would be shown.
    """
    mutation = next((one for one in MUTATIONS if one.name == name), None)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        at = Path(folder)
        for package in ("runner", "torture"):
            shutil.copytree(ROOT / package, at / package, ignore=shutil.ignore_patterns("__pycache__"))
        if mutation is not None:
            _break(at / "runner" / mutation.file, mutation)
        ran = subprocess.run(
            [sys.executable, "-m", "torture.prefixes", "--seed", str(SEED), "--batches", "1", "--most", str(MOST)],
            cwd=at,
            # The copy comes before the package that is installed, for every process; what fails is kept there.
            env=os.environ | {"PYTHONPATH": folder, "TMPDIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode == 0:
        return None
    found = re.search(r"^\[prefix .*$", ran.stdout, re.MULTILINE)
    return found[0] if found else f"it ended with {ran.returncode}: {ran.stderr[-500:]}"


def _break(path: Path, mutation: Mutation) -> None:
    text = path.read_text()
    for before, after in mutation.edits:
        if text.count(before) != 1:
            raise LookupError(f"{mutation.name}: {text.count(before)} times in {mutation.file}, not once: {before!r}")
        text = text.replace(before, after)
    path.write_text(text)
