"""Say which jobs a job needs, in which order they can be planned, and what is wrong with what is written of it."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from runner.spec import SOURCES, Job
from runner.wording import Finding, Loc, suggest

COUNTED = ("runs", "succeeded", "failed", "cancelled", "skipped")
"""What `when` sees of each needed job."""


def needed(job: Job) -> tuple[str, ...]:
    """The jobs that come before *job*: those in `needs`, and the one that its rows come from; each once."""
    source = [] if job.rows.job is None else [job.rows.job]
    return tuple(dict.fromkeys([*job.needs, *source]))


def in_order(jobs: Mapping[str, Job], names: Collection[str]) -> list[str]:
    """*names* of *jobs*, each behind those it needs, otherwise as they stand. What goes in a circle comes last."""
    left = list(names)
    ordered: list[str] = []
    while left:
        free = [name for name in left if not any(before in left for before in needed(jobs[name]))]
        if not free:
            return ordered + left
        ordered += free
        left = [name for name in left if name not in free]
    return ordered


def missing(jobs: Mapping[str, Job], chosen: Sequence[str]) -> tuple[str, str] | None:
    """A job that is *chosen* and one that it needs and that is not, of *jobs*; None when there is no such."""
    return next(((name, one) for name in chosen for one in needed(jobs[name]) if one not in chosen), None)


def with_needs(jobs: Mapping[str, Job], chosen: Collection[str]) -> list[str]:
    """*chosen* and all that they need, of *jobs*, in their order."""
    wanted, left = set(chosen), list(chosen)
    while left:
        more = [name for name in needed(jobs[left.pop()]) if name not in wanted]
        wanted.update(more)
        left += more
    return [name for name in jobs if name in wanted]


def problems(name: str, job: Job, jobs: Mapping[str, Job], declared: Collection[str]) -> Iterator[Finding]:
    """
    What is wrong with the needs of the job *name*, one of *jobs*.

    *declared* are the names of all jobs of the file, those included that are wrong by themselves.
    """
    loc: Loc = ("jobs", name)
    for number, one in enumerate(job.needs):
        yield from _unknown((*loc, "needs", number), name, one, declared)
        if one in job.needs[:number]:
            yield Finding((*loc, "needs", number), f"'{one}' is in 'needs' already", "remove it")
    if job.rows.job is not None:
        yield from _unknown((*loc, "rows", "job"), name, job.rows.job, declared)
    if job.when is not None and not needed(job):
        message = "'when' needs a job whose runs it can look at"
        yield Finding((*loc, "when"), message, "name it in 'needs'", at_key=True)
    circle = _circle(name, jobs)
    if circle is not None:
        at: Loc = (*loc, "rows", "job") if circle[1] == job.rows.job else (*loc, "needs", job.needs.index(circle[1]))
        shown = " needs ".join(f"'{one}'" for one in circle)
        yield Finding(at, f"these jobs wait for each other: {shown}", "let one of them go first")


def _unknown(at: Loc, name: str, one: str, declared: Collection[str]) -> Iterator[Finding]:
    if one == name:
        yield Finding(at, f"job '{name}' can't need itself", "name another job, or remove it")
    elif one not in declared:
        others = [other for other in declared if other != name]
        yield Finding(at, f"unknown job '{one}'", suggest(one, others) or "there is no other job")


def of_rows(loc: Loc, job: Job) -> Iterator[Finding]:
    """What the rows of the job at *loc* can't have when their source is a job, and what they can't have without one."""
    rows = job.rows
    if rows.job is None:
        if rows.collect:
            message, fix = "'collect' is for rows that come from a job", "name it: rows: {job: …, collect: true}"
            yield Finding((*loc, "rows", "collect"), message, fix, at_key=True)
        return
    for key in SOURCES:
        if getattr(rows, key) is not None:
            message = f"'{key}' and 'job' can't stand together"
            yield Finding((*loc, "rows", key), message, "keep one of the two", at_key=True)
    if "shuffle" in rows.model_fields_set and rows.shuffle is not None:
        message = "'shuffle' needs all rows before the first run, and those of a job come as its runs settle"
        yield Finding((*loc, "rows", "shuffle"), message, f"shuffle the rows of job '{rows.job}'", at_key=True)
    if rows.sample is not None:
        message = "'sample' needs all rows before the first run, and those of a job come as its runs settle"
        yield Finding((*loc, "rows", "sample"), message, f"sample the rows of job '{rows.job}'", at_key=True)


def _circle(name: str, jobs: Mapping[str, Job]) -> list[str] | None:
    """The shortest way from the job *name* back to it, of others on the way; told for the first of them only."""
    ways = [[name]]
    seen = {name}
    while ways:
        way = ways.pop(0)
        for one in needed(jobs[way[-1]]):
            if one == name and len(way) > 1:
                order = list(jobs)
                return [*way, name] if order.index(name) == min(map(order.index, way)) else None
            if one in jobs and one not in seen:
                seen.add(one)
                ways.append([*way, one])
    return None


def sample(job: Job) -> dict[str, dict[str, int]]:
    """What `when` of *job* might see, to try it before anything has run: no count is zero, nor equal to another."""
    return {
        name: {word: (number + 1) * prime for word, prime in zip(COUNTED, (26, 11, 7, 5, 3), strict=True)}
        for number, name in enumerate(needed(job))
    }
