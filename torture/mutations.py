"""
Show that the torture bites: break the engine in one place at a time, and see it noticed.

    python -m torture.mutations                   every mutation; exit code 1 if one goes unnoticed
    python -m torture.mutations --only simulation     those that the simulation must notice; or kills, or prefixes
    python -m torture.mutations NAME …            these of the simulation

The engine is copied to a temporary folder and changed there. A mutation whose text is no longer in the engine is an
error: it would prove nothing. What goes on in this folder meanwhile changes nothing for the simulation.
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

from torture import batch_mutants, killing_mutants, mutants, pipeline_mutants, prefix_mutants
from torture.mutants import Mutation

ROOT = Path(__file__).parent.parent

MUTATIONS = (*mutants.MUTATIONS, *pipeline_mutants.MUTATIONS, *batch_mutants.MUTATIONS)

AS_IT_IS = "as it is"
"""The engine without a mutation: nothing may be noticed of it, or the others would show nothing."""


@dataclass(frozen=True)
class Noticed:
    """
    What came of a mutation: after how many *seeds* it was noticed, None where there are none; and by what, None by
    nothing.
    """

    seeds: int | None
    why: str | None
    took_s: float


def copied(origin: Path, folder: Path) -> None:
    """Copy the engine and its torture from *origin* to *folder*."""
    for name in ("runner", "torture"):
        shutil.copytree(origin / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def outdated(origin: Path) -> list[str]:
    """The mutations whose text is not in the engine at *origin* exactly once, in words."""
    return [
        f"mutation {one.name!r}: {count} times in {one.file}, not once: {before!r}"
        for one in MUTATIONS
        for before, _ in one.edits
        if (count := (origin / "runner" / one.file).read_text().count(before)) != 1
    ]


def mutated(origin: Path, mutation: Mutation | None, folder: Path) -> None:
    """Copy the engine from *origin* to *folder*, and break it there."""
    copied(origin, folder)
    if mutation is None:
        return
    path = folder / "runner" / mutation.file
    text = path.read_text()
    for before, after in mutation.edits:
        text = text.replace(before, after)
    path.write_text(text)


def tried(mutation: Mutation | None, *, origin: Path, seeds: int, processes: int) -> Noticed:
    """Live up to *seeds* seeds with *mutation* of the engine at *origin*, as long as nothing is noticed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        mutated(origin, mutation, folder)
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


def of_simulation(names: Sequence[str], *, seeds: int, control: int, processes: int) -> Iterator[tuple[str, Noticed]]:
    """
    Try the mutations called *names*, all if there are none, so many at once as there are *processes*.

    First the engine as it is, with *control* seeds: nothing comes after it if that is found wrong.

    Raises:
        SystemExit: the text of a mutation is not in the engine exactly once.
    """
    with tempfile.TemporaryDirectory(prefix="mutations-") as name, ThreadPoolExecutor(processes) as threads:
        origin = Path(name)
        copied(ROOT, origin)
        if stale := outdated(origin):
            sys.exit("\n".join(stale))
        as_it_is = tried(None, origin=origin, seeds=control, processes=processes)
        yield AS_IT_IS, as_it_is
        if as_it_is.why is not None:
            return
        chosen = [one for one in MUTATIONS if not names or one.name in names]
        found = threads.map(partial(tried, origin=origin, seeds=seeds, processes=1), chosen)
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
    is_control = name.startswith(AS_IT_IS)
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
        lived = of_simulation(chosen.names, seeds=chosen.seeds, control=chosen.control, processes=chosen.processes)
        for name, found in lived:
            wrong += not show("simulation", name, found)
    for by, (names, noticed) in others().items():
        if only in (None, by):
            for name, found in of_others(names, noticed):
                wrong += not show(by, name, found)
    print(f"{wrong} are not as they must be" if wrong else "every one was noticed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
