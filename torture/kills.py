"""
Real kills: processes of the command against real endpoints, ended at each of their steps and at random moments.

    python -m torture.kills                     every case, and 205 kills at random moments
    python -m torture.kills --case NAME ...     these again; the seed tells all else
    python -m torture.kills --list              what there is

Beside it: whatever the service and the way to it can do to a batch, and people to its files. What the endpoint's own
log says is held against what a batch says of itself: nothing may be lost, and nothing sent twice but after an answer
that was lost, where somebody had wished that. Exit code 1 if anything else was found.
"""

import sys

from torture import edits, faults, sigkills
from torture.cases import Case
from torture.player import program

MOMENTS = 205
"""A few more than 200, for now and then a batch ends before its moment comes."""


def cases(moments: int, seed: int) -> list[Case]:
    """Every case, and kills at so many random moments."""
    return [*faults.cases(), *edits.cases(), *sigkills.named(), *sigkills.random_moments(moments, seed)]


if __name__ == "__main__":
    sys.exit(program("kills", __doc__, cases, random=MOMENTS))
