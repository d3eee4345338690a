"""Live many seeds, those that once failed first: ``python -m torture.simulation``."""

import argparse
import atexit
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from torture.simulation.life import Life, live
from torture.simulation.machine import Machine, installed
from torture.simulation.minimise import minimised
from torture.simulation.scenario import draw

CORPUS = Path(__file__).with_name("corpus.txt")
MEMORY = Path("/dev/shm")


def corpus() -> list[int]:
    """The seeds that found something once."""
    lines = CORPUS.read_text().splitlines() if CORPUS.exists() else []
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for lives, in memory where there is such a place: the disk below is simulated."""
    with tempfile.TemporaryDirectory(prefix="torture-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


_worker: list[tuple[ExitStack, Machine, Path]] = []
"""What a process that lives seeds holds open."""


def _begin() -> None:
    stack = ExitStack()
    _worker.append((stack, stack.enter_context(installed()), stack.enter_context(scratch()) / "life"))
    atexit.register(stack.close)


def _live(seed: int) -> Life:
    _, machine, folder = _worker[0]
    life = live(draw(seed), folder, machine)
    if not life.wrong:
        life.lines = life.lines[-1:]
    return life


def lives(seeds: list[int], *, processes: int) -> Iterator[Life]:
    """The lives of *seeds*, in no order."""
    with multiprocessing.Pool(processes, initializer=_begin) as pool:
        yield from pool.imap_unordered(_live, seeds, chunksize=4)


def main() -> int:
    """Live the seeds of the command line; 0 when no invariant was broken."""
    parser = argparse.ArgumentParser(prog="python -m torture.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many, beside those that failed once")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="live this one, and print all that happened")
    parser.add_argument("--minimise", type=int, metavar="SEED", help="make the life of this one as small as it fails")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-corpus", action="store_true", help="leave those that failed once out")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--json", type=Path, help="write a line of JSON for each seed, and one for all, to this file")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        with installed() as machine, scratch() as folder:
            life = live(draw(chosen.seed), folder / "life", machine)
        print("\n".join(life.lines))
        print(json.dumps(life.as_json(), indent=1))
        return 1 if life.wrong else 0
    if chosen.minimise is not None:
        with installed() as machine, scratch() as folder:
            smallest, life = minimised(draw(chosen.minimise), folder / "life", machine, lambda text: print(text))
        print("\n".join([*life.lines, "", str(smallest)]))
        return 1 if life.wrong else 0
    old = [] if chosen.no_corpus else corpus()
    seeds = [*old, *(seed for seed in range(chosen.first, chosen.first + chosen.seeds) if seed not in old)]
    with ExitStack() as stack:
        out = stack.enter_context(chosen.json.open("w")) if chosen.json else None
        return run(seeds, processes=chosen.processes, stop=chosen.stop, out=out)


def run(seeds: list[int], *, processes: int, stop: bool = False, out: TextIO | None = None) -> int:
    """Live *seeds* and say what came of it."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    failed: list[int] = []
    lived = 0
    for life in lives(seeds, processes=processes):
        lived += 1
        counts += life.counts
        tally += life.tally
        if out is not None:
            out.write(json.dumps(life.as_json()) + "\n")
        if life.wrong:
            failed.append(life.seed)
            print(f"seed {life.seed}: {life.wrong[0][:300]}", flush=True)
            if stop:
                break
    told = summary(lived, failed, counts, tally, time.monotonic() - began)
    if out is not None:
        out.write(json.dumps({"simulation": told}) + "\n")
    show(told)
    return 1 if failed else 0


def summary(lived: int, failed: list[int], counts: Counter[str], tally: Counter[str], took_s: float) -> dict[str, Any]:
    """What a report folds of many lives."""
    return {
        "seeds": lived,
        "failed": sorted(failed),
        "took_s": round(took_s, 1),
        "faults": dict(sorted(counts.items())),
        "kills": sum(count for kind, count in counts.items() if kind.startswith(("kill", "power loss"))),
        **{name.replace(" ", "_"): count for name, count in sorted(tally.items())},
    }


def show(told: dict[str, Any]) -> None:
    """Print *told* for a person."""
    print(f"\n{told['seeds']} seeds lived in {told['took_s']:.0f} s")
    for kind, count in told["faults"].items():
        print(f"  {count:>7}  {kind}")
    print()
    for name, value in told.items():
        if name not in ("faults", "failed", "seeds", "took_s"):
            print(f"  {value:>7}  {name.replace('_', ' ')}")
    if told["failed"]:
        print(f"\n{len(told['failed'])} seeds broke an invariant: {' '.join(map(str, told['failed'][:50]))}")
        print("  replay one with: python -m torture.simulation --seed N")


if __name__ == "__main__":
    sys.exit(main())
