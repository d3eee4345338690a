"""Live many seeds, those made by hand and those that once failed first: ``python -m torture.simulation``."""

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
from typing import Any

from torture.simulation.faults import Table
from torture.simulation.life import Life, live
from torture.simulation.machine import Machine, installed
from torture.simulation.minimise import minimised
from torture.simulation.targeted import SEEDS, scenario

CORPUS = Path(__file__).with_name("corpus.txt")
MEMORY = Path("/dev/shm")

ENOUGH = 2000
"""So many lives must meet every fault at least once."""


def corpus() -> list[int]:
    """The lives made by hand, and the seeds that found something once."""
    lines = CORPUS.read_text().splitlines() if CORPUS.exists() else []
    return [*SEEDS, *(int(line.split()[0]) for line in lines if line and not line.startswith("#"))]


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
    life = lived(seed, folder, machine)
    if not life.wrong:
        life.lines = life.lines[-1:]
    return life


def lived(seed: int, folder: Path, machine: Machine) -> Life:
    """The life of *seed*, drawn or made by hand, by the number that it is replayed with."""
    life = live(scenario(seed), folder, machine)
    life.seed = seed
    return life


def lives(seeds: list[int], *, processes: int) -> Iterator[Life]:
    """The lives of *seeds*, in no order."""
    with multiprocessing.Pool(processes, initializer=_begin) as pool:
        yield from pool.imap_unordered(_live, seeds, chunksize=4)


def main() -> int:
    """Live the seeds of the command line; 0 when no invariant was broken."""
    parser = argparse.ArgumentParser(prog="python -m torture.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many, beside those that are lived first")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="live this one, and print all that happened")
    parser.add_argument("--minimise", type=int, metavar="SEED", help="make the life of this one as small as it fails")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--no-corpus", action="store_true", help="leave out those made by hand, and those that failed once"
    )
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--json", type=Path, help="write what came of it to this file, as one JSON object")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        with installed() as machine, scratch() as folder:
            life = lived(chosen.seed, folder / "life", machine)
        print("\n".join(life.lines))
        print(json.dumps(life.as_json(), indent=1))
        return 1 if life.wrong else 0
    if chosen.minimise is not None:
        with installed() as machine, scratch() as folder:
            smallest, life = minimised(scenario(chosen.minimise), folder / "life", machine, lambda text: print(text))
        print("\n".join([*life.lines, "", str(smallest)]))
        return 1 if life.wrong else 0
    old = [] if chosen.no_corpus else corpus()
    seeds = [*old, *(seed for seed in range(chosen.first, chosen.first + chosen.seeds) if seed not in old)]
    return run(seeds, first=chosen.first, processes=chosen.processes, stop=chosen.stop, out=chosen.json)


def run(seeds: list[int], *, first: int, processes: int, stop: bool = False, out: Path | None = None) -> int:
    """Live *seeds*, say what came of it, and write it to *out*; 0 when no invariant was broken."""
    began = time.monotonic()
    table, tally = Table(), Counter[str]()
    problems: dict[int, str] = {}
    lived = 0
    for life in lives(seeds, processes=processes):
        lived += 1
        table.add(life)
        tally += life.tally
        if life.wrong:
            problems[life.seed] = f"seed {life.seed}: {life.wrong[0][:300]}"
            print(problems[life.seed], flush=True)
            if stop:
                break
    missing = table.missing() if lived >= ENOUGH else []
    told = {
        "rows": table.as_json(),
        "kills": sum(count for kind, count in table.counts.items() if kind.startswith(("kill", "power loss"))),
        "seed": first,
        "seeds": lived,
        "seconds": round(time.monotonic() - began, 1),
        "problems": [problems[seed] for seed in sorted(problems)] + missing,
        "totals": dict(sorted(tally.items())),
        "counts": dict(sorted(table.counts.items())),
    }
    if out is not None:
        out.write_text(json.dumps(told) + "\n")
    show(told, sorted(problems))
    return 1 if told["problems"] else 0


def show(told: dict[str, Any], failed: list[int]) -> None:
    """Print *told* for a person; *failed* are the seeds that broke an invariant."""
    print(f"\n{told['seeds']} seeds lived in {told['seconds']:.0f} s, {told['kills']} kills")
    print(f"\n{'fault':<60} {'tried':>7} {'runs':>7} {'lost':>5} {'twice':>5} {'again':>6}")
    for row in told["rows"]:
        numbers = f"{row['tried']:>7} {row['runs']:>7} {row['lost']:>5} {row['paid_twice']:>5}"
        print(f"{row['fault']:<60} {numbers} {row['sent_again_knowingly']:>6}")
    print()
    for name, value in told["totals"].items():
        print(f"{value:>7}  {name}")
    if failed:
        print(f"\n{len(failed)} seeds broke an invariant: {' '.join(map(str, failed[:50]))}")
        print("  replay one with: python -m torture.simulation --seed N")
    for problem in told["problems"][len(failed) :]:
        print(problem)


if __name__ == "__main__":
    sys.exit(main())
