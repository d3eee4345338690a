"""What processes cost, and on which core they run."""

import os
from pathlib import Path


def cpu_s(pid: int) -> float:
    """CPU seconds of a process until now, those of all its living threads together, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e9


def descendants(pid: int) -> list[int]:
    """The processes that *pid* started, and theirs."""
    parents = {}
    for one in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = one.read_text()
        except OSError:  # it ended just now
            continue
        parents[int(one.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def cores() -> tuple[int, int | None]:
    """One core for the server and another for whoever asks it; None where there is no second."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1] if len(usable) > 1 else None
