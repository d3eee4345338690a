"""
Run the command, whose calendar steps on its way: ``python -m torture.shifted SECONDS NTH WORDS...``.

From the NTH time on that it looks, it is SECONDS later (or earlier). What counts time passing goes on as it did.
"""

import sys
from collections.abc import Sequence

from runner import clock


def install(by_s: float, nth: int) -> None:
    """Let the calendar step."""
    now = clock.SystemClock.now
    looks = 0

    def stepped() -> float:
        nonlocal looks
        looks += 1
        return now() + (by_s if looks >= nth else 0.0)

    clock.SystemClock.now = staticmethod(stepped)


def main(words: Sequence[str]) -> None:
    """Install the step, and be the command."""
    from runner.__main__ import main as command

    by_s, nth, *rest = words
    install(float(by_s), int(nth))
    sys.argv = ["runner", *rest]
    command()


if __name__ == "__main__":
    main(sys.argv[1:])
