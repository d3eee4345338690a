"""Group error messages that say the same of different things. Pure, and in bounded memory."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST_PATTERNS = 2_000
"""More are not told apart: a batch that fails in so many ways needs its log, not a list."""

_VARYING = (
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "…"),
    (re.compile(r"\b(?=[0-9a-fA-F]*[0-9])(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,}\b|\b0x[0-9a-fA-F]+\b"), "…"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "#"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that failed alike: how many, in how many wordings, and the commonest *message* among these."""

    job: str
    count: int
    wordings: int
    message: str


def pattern(message: str) -> str:
    """*message* without what differs from run to run: numbers, ids, addresses."""
    for varying, sign in _VARYING:
        message = varying.sub(sign, message)
    return message


def grouped(job: str, messages: Iterable[tuple[str, int]]) -> tuple[list[Group], int]:
    """The *messages* of a job, each with its count, as groups, the largest first; and how many runs are in none."""
    counts: dict[str, int] = {}
    wordings: dict[str, int] = {}
    commonest: dict[str, tuple[int, str]] = {}
    left = 0
    for message, count in messages:
        found = pattern(message)
        if found not in counts and len(counts) >= MOST_PATTERNS:
            left += count
            continue
        counts[found] = counts.get(found, 0) + count
        wordings[found] = wordings.get(found, 0) + 1
        if found not in commonest or commonest[found][0] < count:
            commonest[found] = (count, message)
    groups = [Group(job, counts[found], wordings[found], commonest[found][1]) for found in counts]
    return sorted(groups, key=lambda one: (-one.count, one.message)), left
