"""
Show that the torture bites: break the engine in one place at a time, and see it noticed.

    python -m torture.mutations                   every mutation; exit code 1 if one goes unnoticed
    python -m torture.mutations --only simulation     those that the simulation must notice; or kills, or prefixes
    python -m torture.mutations NAME …            these of the simulation

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torture import killing_mutants, prefix_mutants
from torture.mutants import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Noticed:
    """
    What came of a mutation: after how many *seeds* it was noticed, None where there are none; and by what, None by
    nothing.
    """

    seeds: int | None
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
        words = ["--seeds", str(seeds), "--processes", str(processes), "--stop"]
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
    why = re.search(r"^seed (-?\d+: .*)$", ran.stdout, re.MULTILINE)
    return Noticed(int(lived[1]), why[1] if why else None, took_s)


def of_simulation(names: Sequence[str], seeds: int, processes: int) -> Iterator[tuple[str, Noticed]]:
    """Try the mutations called *names*, all if there are none, so many at once as there are *processes*."""
    chosen = [one for one in MUTATIONS if not names or one.name in names]
    with ThreadPoolExecutor(processes) as threads:
        found = threads.map(partial(tried, seeds=seeds, processes=1), chosen)
        yield from zip([one.name for one in chosen], found, strict=True)


def others() -> dict[str, tuple[Sequence[str], Callable[[str], str | None]]]:
    """What else has to notice mutations: their names, and what says how one was noticed."""
    return {
        "kills": (tuple(killing_mutants.KILLING), killing_mutants.noticed),
        "prefixes": (prefix_mutants.NAMES, prefix_mutants.noticed),
    }


def of_others(names: Sequence[str], noticed: Callable[[str], str | None]) -> Iterator[tuple[str, Noticed]]:
    """Try the mutations that others notice, one at a time: they use all processors."""
    for name in names:
        began = time.monotonic()
        why = noticed(name)
        yield name, Noticed(None, why, time.monotonic() - began)


def show(by: str, name: str, found: Noticed) -> bool:
    """Print a line for what came of a mutation; whether it is as it must be."""
    is_control = name.startswith("as it is")
    is_right = (found.why is None) is is_control
    told = "all well" if found.why is None else found.why[:90]
    if not is_right:
        told = f"WRONG: {told}" if is_control else "NOT NOTICED"
    seeds = "" if found.seeds is None else f"{found.seeds} seeds, "
    print(f"{by:<10} {name:<58} {seeds:>12}{found.took_s:>4.0f} s: {told}", flush=True)
    return is_right


def main() -> int:
    """Try the mutations of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="those of the simulation to try; none: all")
    parser.add_argument("--only", choices=("simulation", "kills", "prefixes"), help="what has to notice them")
    parser.add_argument("--seeds", type=int, default=2000, help="so many for each in the simulation, at most")
    parser.add_argument("--control", type=int, default=200, help="so many for the engine as it is")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    only = "simulation" if chosen.names else chosen.only
    wrong = 0
    if only in (None, "simulation"):
        control = tried(None, chosen.control, chosen.processes)
        if not show("simulation", "as it is", control):
            return 1  # nothing can be shown
        for name, found in of_simulation(chosen.names, chosen.seeds, chosen.processes):
            wrong += not show("simulation", name, found)
    for by, (names, noticed) in others().items():
        if only in (None, by):
            for name, found in of_others(names, noticed):
                wrong += not show(by, name, found)
    print(f"{wrong} are not as they must be" if wrong else "every one was noticed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
