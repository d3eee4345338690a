"""Combine a matrix's values, with include and exclude as GitHub Actions has them."""

import itertools
from collections.abc import Iterator

from runner import values
from runner.spec import Rows, found
from runner.values import JsonObject
from runner.wording import Finding, Loc, suggest

MAX_COMBINATIONS = 100_000


def combinations(rows: Rows) -> list[JsonObject]:
    """
    Every combination of a job, in order: the last key changes fastest, what `include` adds comes last.

    As in GitHub Actions: `exclude` leaves out each combination that has all its values. Then each `include` entry is
    added to every combination whose matrix values it would not change; values that an entry added may be changed by
    a later one. An entry that fits nowhere becomes a combination by itself, which later entries leave alone.
    """
    keys = list(rows.matrix or {})
    originals = [dict(zip(keys, picked, strict=True)) for picked in itertools.product(*(rows.matrix or {}).values())]
    if not keys:
        originals = []
    kept = [original for original in originals if not any(_matches(entry, original) for entry in rows.exclude)]
    extended = [dict(original) for original in kept]
    alone = []
    for entry in rows.include:
        fits = [
            n
            for n, original in enumerate(kept)
            if _matches({k: v for k, v in entry.items() if k in original}, original)
        ]
        for n in fits:
            extended[n] |= entry
        if not fits:
            alone.append(dict(entry))
    return extended + alone


def _matches(entry: JsonObject, combination: JsonObject) -> bool:
    """Whether *combination* has every value of *entry*; 1 and true are different values, 1 and 1.0 too."""
    return all(key in combination and _same(combination[key], value) for key, value in entry.items())


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and values.canonical(one) == values.canonical(other)


def problems(loc: Loc, rows: Rows) -> Iterator[tuple[Finding, bool]]:
    """What is wrong with the matrix under *loc*, and whether it is only a warning."""
    known = list(rows.matrix or {})
    if rows.exclude and not known:
        yield Finding((*loc, "exclude"), "'exclude' needs a 'matrix'", at_key=True), False
        return
    size = 1
    for listed in (rows.matrix or {}).values():
        size *= len(listed)
    if size > MAX_COMBINATIONS:
        message = f"the matrix makes {size} combinations, at most {MAX_COMBINATIONS} are possible"
        yield Finding((*loc, "matrix"), message, "put large lists into rows", at_key=True), False
        return
    yield from _exclude_problems(loc, rows, known)
    if (known or rows.include) and not combinations(rows):
        yield Finding((*loc, "exclude"), "no combination is left of the matrix", at_key=True), False


def _exclude_problems(loc: Loc, rows: Rows, known: list[str]) -> Iterator[tuple[Finding, bool]]:
    for number, entry in enumerate(rows.exclude):
        unknown = [key for key in entry if key not in known]
        for key in unknown:
            at: Loc = (*loc, "exclude", number, key)
            yield Finding(at, f"the matrix has no '{key}' to exclude", suggest(key, known), at_key=True), False
        for key in entry:
            if key in known and not any(_same(entry[key], value) for value in (rows.matrix or {})[key]):
                at = (*loc, "exclude", number, key)
                message = f"this excludes nothing: '{key}' is never {found(entry[key])} in the matrix"
                yield Finding(at, message), True
