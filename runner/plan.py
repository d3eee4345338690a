"""
Expand a job into its runs (rows x matrix x repeat, with stable keys), lazily.

Planning reads the data twice. The first pass counts and digests, so that a bad row or a bad expression is known before
anything is sent; the second hands out runs one at a time, in constant memory, and refuses a file that has changed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from runner import matrix, render, values
from runner.check import EMPTY_INPUT, JobFile, Templates, empty
from runner.errors import JobFileError, Problem, UsageError
from runner.inputs.base import BadRow, Report
from runner.inputs.source import DataFile, Inline, InputFile
from runner.render import RenderError
from runner.runs import Occurrences as Occurrences
from runner.runs import Run as Run
from runner.spec import Job, found
from runner.values import JsonObject, JsonValue

MAX_BAD_ROWS = 20
"""Bad rows of a file that are reported before reading stops."""


class Counter:
    """Occurrences in memory: 100 bytes or so a run."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def count(self, digest: bytes) -> int:
        """How often *digest* was counted before; counts it once more."""
        before = self._seen.get(digest, 0)
        self._seen[digest] = before + 1
        return before


@dataclass(frozen=True)
class JobPlan:
    """A job and its *runs*, counted exactly."""

    name: str
    job: Job
    runs: int
    _source: DataFile | Inline
    _templates: Templates
    _vars: JsonObject
    _combinations: Sequence[JsonObject | None]

    def expand(self, occurrences: Occurrences) -> Iterator[Run]:
        """
        Every run, in the order of the plan.

        Raises:
            UsageError: the data file is no longer the one that was planned.
        """
        if not self.runs:
            return
        index = 0
        for row in self._kept(_raise):
            for row_, combination, repeat in self._products(row):
                yield self._run(index, row_, combination, repeat, occurrences)
                index += 1
                if index == self.runs:
                    if isinstance(self._source, DataFile):
                        self._source.verify()
                    return
        if index < self.runs:
            raise UsageError(f"job '{self.name}' has {index} runs, planned were {self.runs}", fix="start again")

    def _products(self, row: JsonObject | None) -> Iterator[tuple[JsonObject | None, JsonObject | None, int]]:
        """*row* with each combination and repeat, copied for each run but the only one."""
        combinations, repeats = self._combinations, self.job.rows.repeat
        single = len(combinations) * repeats == 1
        for combination in combinations:
            for repeat in range(repeats):
                yield (
                    row if single or row is None else self._source.copy(row),
                    render.copy(combination),
                    repeat,
                )

    def _run(
        self, index: int, row: JsonObject | None, combination: JsonObject | None, repeat: int, occurrences: Occurrences
    ) -> Run:
        rendered, problem = None, None
        try:
            rendered = self._rendered(row, combination, repeat)
        except RenderError as error:
            problem = f"{'.'.join(map(str, error.loc[2:]))}: {error.message}"
        keyed = rendered if problem is None else {"row": row, "matrix": combination}
        key = _key(self.name, keyed, occurrences)
        return Run(self.name, index, key, row, combination, repeat, rendered, problem)

    def _rendered(self, row: JsonObject | None, combination: JsonObject | None, repeat: int) -> JsonValue:
        rendered = self._templates.input({"row": row, "matrix": combination, "vars": self._vars, "repeat": repeat})
        if not rendered:
            shown = empty(rendered)
            raise RenderError(("jobs", self.name, "input"), f"an empty input, {shown}, never arrives: {EMPTY_INPUT}")
        return rendered

    def _kept(self, report: Report, *, drain: bool = False) -> Iterator[JsonObject | None]:
        """
        Rows after `where` and `limit`. *drain* reads on after the limit, to see the whole file.

        Raises:
            RenderError: `where` fails on a row, or is neither true nor false there.
        """
        kept, limit = 0, self.job.rows.limit
        for number, row in enumerate(self._source.rows(report), 1):
            if limit is not None and kept == limit:
                if drain:
                    continue
                return
            if self._templates.where is None or self._keeps(row, number):
                kept += 1
                yield row

    def _keeps(self, row: JsonObject | None, number: int) -> bool:
        """Whether `where` keeps *row*."""
        where, loc = self._templates.where, ("jobs", self.name, "rows", "where")
        try:
            keep = where({"row": row, "vars": self._vars}) if where else True
        except RenderError as error:
            raise RenderError(loc, f"row {number}: {error.message}") from None
        if not isinstance(keep, bool):
            raise RenderError(loc, f"row {number}: expected true or false, found {found(keep)}")
        return keep

    def first_trouble(self) -> RenderError | None:
        """Why the first run can't be rendered; None when it can, and when there is none."""
        if not self.runs:
            return None
        for row in self._kept(_raise):
            for parts in self._products(row):
                try:
                    self._rendered(*parts)
                except RenderError as error:
                    return error
                return None
        return None

    def counted(self, report: Report) -> int:
        """Rows that are kept; reads the whole of a data file, so that it is digested."""
        return sum(1 for _ in self._kept(report, drain=True))


def _raise(row: BadRow) -> None:
    """The report of a second pass: a row that has turned bad since the first means another file."""
    raise row


def _key(job: str, keyed: JsonValue, occurrences: Occurrences) -> str:
    digest = blake2b(values.canonical([job, keyed]), digest_size=16)
    number = occurrences.count(digest.digest())
    digest.update(b"#%d" % number)
    return digest.hexdigest()


@dataclass(frozen=True)
class Plan:
    """What a job file expands to: its chosen jobs in file order, and the data files they read."""

    jobs: dict[str, JobPlan]
    inputs: tuple[InputFile, ...]

    @property
    def total(self) -> int:
        """Runs of all jobs."""
        return sum(job.runs for job in self.jobs.values())


def make_plan(job_file: JobFile, *, only: Sequence[str] = (), limit: int | None = None) -> Plan:
    """
    Count the runs of the chosen jobs, and read their data once.

    Args:
        only: Jobs to plan; empty: all.
        limit: At most this many runs of each job.

    Raises:
        JobFileError: data can't be read, `where` fails on a row, or a job's first run can't be rendered.
        UsageError: *only* names a job that the file has not.
    """
    problems: list[Problem] = []
    jobs: dict[str, JobPlan] = {}
    files: dict[Any, InputFile] = {}
    for name in job_file.chosen(only):
        try:
            job = _plan_job(job_file, name, limit)
        except JobFileError as error:
            problems += error.problems
            continue
        jobs[name] = job
        if isinstance(job._source, DataFile) and job._source.file is not None:
            files[job._source.path] = job._source.file
    if problems:
        raise JobFileError(problems)
    return Plan(jobs, tuple(files.values()))


def _plan_job(job_file: JobFile, name: str, limit: int | None) -> JobPlan:
    job = job_file.jobs[name]
    source = DataFile(job_file.folder / job.rows.file) if job.rows.file else Inline(job.rows.inline)
    combinations = matrix.combinations(job.rows) if job.rows.matrix or job.rows.include else [None]
    plan = JobPlan(name, job, 0, source, job_file.templates[name], job_file.vars, combinations)
    runs = _count(job_file, plan) * len(combinations) * job.rows.repeat
    plan = replace(plan, runs=runs if limit is None else min(runs, limit))
    trouble = plan.first_trouble()
    if trouble is not None:
        message = f"the first run of job '{name}' can't be rendered: {trouble.message}"
        raise JobFileError([job_file.problem(trouble.loc, message)])
    return plan


def _count(job_file: JobFile, plan: JobPlan) -> int:
    """Rows of *plan*; every bad one of its data file is a problem."""
    bad: list[BadRow] = []

    def report(row: BadRow) -> None:
        if len(bad) == MAX_BAD_ROWS:
            raise _Enough
        bad.append(row)

    rows = 0
    try:
        rows = plan.counted(report)
    except _Enough:
        pass
    except BadRow as row:
        bad.append(row)
    except RenderError as error:
        raise JobFileError([job_file.problem(error.loc, error.message)]) from None
    except OSError as error:
        loc = ("jobs", plan.name, "rows", "file")
        raise JobFileError([job_file.problem(loc, f"can't be read: {error.strerror}")]) from None
    if bad:
        file = str(job_file.folder / (plan.job.rows.file or ""))
        raise JobFileError([Problem(file, r.line, r.column, r.message, r.fix, r.source) for r in bad])
    return rows


class _Enough(Exception):
    """Raised when more bad rows wouldn't tell anything new."""
