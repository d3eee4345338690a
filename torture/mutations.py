"""
Show that the simulation bites: break the engine in one place at a time, and see it noticed.

    python -m torture.mutations            every mutation; exit code 1 if one goes unnoticed
    python -m torture.mutations NAME …     these

The engine is copied to a temporary folder and changed there. A mutation whose text is no longer in the engine is an
error: it would prove nothing.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from torture.mutants import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Noticed:
    """What came of a mutation: after how many *seeds* it was noticed, and by what; None by nothing."""

    seeds: int
    why: str | None
    took_s: float


def mutated(mutation: Mutation | None, folder: Path) -> None:
    """
    Copy the engine to *folder*, and break it there.

    Raises:
        SystemExit: the text to change is not there exactly once.
    """
    for name in ("runner", "torture"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if mutation is None:
        return
    path = folder / "runner" / mutation.file
    text = path.read_text()
    for before, after in mutation.edits:
        if text.count(before) != 1:
            sys.exit(f"mutation {mutation.name!r}: {text.count(before)} times in {mutation.file}, not once: {before!r}")
        text = text.replace(before, after)
    path.write_text(text)


def tried(mutation: Mutation | None, seeds: int, processes: int) -> Noticed:
    """Live up to *seeds* seeds with *mutation*, as long as nothing is noticed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        mutated(mutation, folder)
        words = ["--seeds", str(seeds), "--processes", str(processes), "--stop", "--no-corpus"]
        ran = subprocess.run(
            [sys.executable, "-m", "torture.simulation", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    took_s = time.monotonic() - began
    lived = re.search(r"^(\d+) seeds? lived", ran.stdout, re.MULTILINE)
    if lived is None:  # it breaks even the start: that is noticed, too
        last = (ran.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return Noticed(0, last, took_s)
    why = re.search(r"^seed (\d+: .*)$", ran.stdout, re.MULTILINE)
    return Noticed(int(lived[1]), why[1] if why else None, took_s)


def main() -> int:
    """Try the mutations of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="those to try; none: all")
    parser.add_argument("--seeds", type=int, default=1000, help="so many for each, at most")
    parser.add_argument("--control", type=int, default=200, help="so many for the engine as it is")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    control = tried(None, chosen.control, chosen.processes)
    if control.why is not None:
        sys.exit(f"the engine as it is breaks an invariant, so nothing can be shown: {control.why}")
    print(f"{'as it is':<52} {control.seeds:>5} seeds, all well")
    unnoticed = 0
    for mutation in MUTATIONS:
        if chosen.names and mutation.name not in chosen.names:
            continue
        found = tried(mutation, chosen.seeds, chosen.processes)
        unnoticed += found.why is None
        told = "NOT NOTICED" if found.why is None else found.why[:90]
        print(f"{mutation.name:<52} {found.seeds:>5} seeds, {found.took_s:>4.0f} s: {told}", flush=True)
    print(f"{unnoticed} unnoticed" if unnoticed else "every one was noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
