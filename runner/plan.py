"""
Expand a job into its runs (rows x matrix x repeat, with stable keys), lazily.

Planning reads the data twice. The first pass counts and digests, so that a bad row or a bad expression is known before
anything is sent; the second hands out runs one at a time, in constant memory, and refuses a file that has changed.
"""

import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from runner import artifact_paths, matrix, render, values
from runner.check import EMPTY_INPUT, JobFile, Templates, empty
from runner.errors import JobFileError, Problem, UsageError
from runner.inputs import shuffle
from runner.inputs.base import BadRow, Report
from runner.inputs.source import Inline, InputFile, Source, source_of
from runner.render import RenderError
from runner.runs import Occurrences as Occurrences
from runner.runs import Run as Run
from runner.spec import Job, Rows, found
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


class Same(Protocol):
    """Says which runs of a plan are meant; it is asked in the order of the plan."""

    def has_row(self, row: JsonObject | None, /) -> bool:
        """Whether any run of *row* is meant."""
        ...

    def has(self, combination: JsonObject | None, repeat: int, /) -> bool:
        """Whether, of a row that is meant, the run with *combination* and *repeat* is."""
        ...


def row_digest(row: JsonObject | None) -> int:
    """64 bit by which a row is known again; equal rows share it."""
    return int.from_bytes(blake2b(values.canonical(row), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class JobPlan:
    """A job and its *runs*, counted exactly."""

    name: str
    job: Job
    runs: int
    _source: Source
    _templates: Templates
    _vars: JsonObject
    _combinations: Sequence[JsonObject | None]
    _shuffled: shuffle.Spool | None = None

    @property
    def files(self) -> Sequence[InputFile]:
        """The data files it reads."""
        return self._source.files

    def expand(self, occurrences: Occurrences, *, same: "Same | None" = None) -> Iterator[Run]:
        """
        Every run, in the order of the plan; with *same* only those that it takes.

        Raises:
            UsageError: the data file is no longer the one that was planned, or can't be read any more.
        """
        try:
            yield from self._runs(occurrences, same)
        except (BadRow, RenderError) as error:
            message = f"the data of job '{self.name}' is no longer what was planned: {error.message}"
            raise UsageError(message, fix="put it back as it was, then go on with --resume") from None
        except OSError as error:
            message = f"the data of job '{self.name}' can't be read any more: {error.strerror or error}"
            raise UsageError(message, fix="put it back as it was, then go on with --resume") from None

    def row_digests(self) -> "array[int]":
        """The digests of the rows that its runs are made of, in order. Raises what `expand` does."""
        products = len(self._combinations) * self.job.rows.repeat
        rows = itertools.islice(self._kept(_raise), -(-self.runs // products) if products else 0)
        return array("Q", (row_digest(row) for row in rows))

    @staticmethod
    def combinations_of(rows: Rows) -> Sequence[JsonObject | None]:
        """What each row of *rows* is run with; None where there is no matrix."""
        return matrix.combinations(rows) if rows.matrix or rows.include else [None]

    def _runs(self, occurrences: Occurrences, same: "Same | None") -> Iterator[Run]:
        if not self.runs:
            return
        index = 0
        for row in self._kept(_raise):
            is_there = same is None or same.has_row(row)
            for row_, combination, repeat in self._products(row):
                if same is None or (is_there and same.has(combination, repeat)):
                    yield self._run(index, row_, combination, repeat, occurrences)
                index += 1
                if index == self.runs:
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

    def _kept(self, report: Report) -> Iterator[JsonObject | None]:
        """
        Rows after `where`, `shuffle` and `limit`, in order.

        Raises:
            RenderError: `where` fails on a row, or is neither true nor false there.
        """
        if self._shuffled is not None:
            return self._shuffled.rows()
        limit = self.job.rows.limit
        return itertools.islice((row for _, row in self._matching(report, limit)), limit)

    def _matching(self, report: Report, most: int | None) -> Iterator[tuple[int, JsonObject | None]]:
        """
        Rows that `where` keeps, each with its number in the source, from 0; at most *most* of them.

        Whoever draws them to the end has read all of the source.
        """
        kept = 0
        for number, row in enumerate(self._source.rows(report)):
            if kept != most and (self._templates.where is None or self._keeps(row, number + 1)):
                kept += 1
                yield number, row

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

    def chosen(self, report: Report) -> "tuple[int, array[int] | None]":
        """
        How many rows there are to run, and their numbers when they are shuffled.

        Reads the whole of every data file, so that it is digested.
        """
        limit, seed = self.job.rows.limit, self.job.rows.shuffle
        if seed is None:
            return sum(1 for _ in self._matching(report, limit)), None
        order = shuffle.order((number for number, _ in self._matching(report, None)), seed, limit)
        return len(order), order

    def with_rows(self, rows: int, order: "array[int] | None") -> "JobPlan":
        """This plan, of *rows*; those in *order* are read once more, and kept aside."""
        shuffled = None if order is None else shuffle.Spool(self._source.rows(_raise), order)
        return replace(self, runs=rows * len(self._combinations) * self.job.rows.repeat, _shuffled=shuffled)


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
    """
    What a job file expands to: its chosen jobs in file order, and the data files they read.

    *notes* are warnings: of jobs whose rows come from stdin, which was not read. They count no run.
    """

    jobs: dict[str, JobPlan]
    inputs: tuple[InputFile, ...]
    notes: tuple[Problem, ...] = ()

    @property
    def total(self) -> int:
        """Runs of all jobs."""
        return sum(job.runs for job in self.jobs.values())


def make_plan(
    job_file: JobFile, *, only: Sequence[str] = (), limit: int | None = None, stdin: Path | None = None
) -> Plan:
    """
    Count the runs of the chosen jobs, and read their data once.

    Args:
        only: Jobs to plan; empty: all.
        limit: At most this many runs of each job.
        stdin: A file with what stdin gave, for jobs whose `rows.file` is ``-``. None: they are only noted.

    Raises:
        JobFileError: data can't be read, `where` fails on a row, or a job's first run can't be rendered.
        UsageError: *only* names a job that the file has not.
    """
    problems: list[Problem] = []
    notes: list[Problem] = []
    jobs: dict[str, JobPlan] = {}
    files: dict[Path, InputFile] = {}
    for name in job_file.chosen(only):
        source = source_of(job_file.jobs[name].rows, job_file.folder, stdin)
        if source is None:
            loc = ("jobs", name, "rows", "file")
            notes.append(job_file.problem(loc, "rows from stdin are not checked", warning=True))
        try:
            jobs[name] = _plan_job(job_file, name, limit, source or Inline([]))
        except JobFileError as error:
            problems += error.problems
            continue
        files |= {file.path: file for file in jobs[name].files}
    if problems:
        raise JobFileError(problems)
    return Plan(jobs, tuple(files.values()), tuple(notes))


def no_plan(job_file: JobFile, *, only: Sequence[str] = ()) -> Plan:
    """A plan of the chosen jobs that has no run, whatever their data are."""
    return Plan(
        {
            name: JobPlan(name, job_file.jobs[name], 0, Inline([]), job_file.templates[name], job_file.vars, [None])
            for name in job_file.chosen(only)
        },
        (),
    )


def recalled(
    job_file: JobFile,
    runs: Mapping[str, int],
    inputs: Mapping[Path, InputFile],
    *,
    only: Sequence[str] = (),
    stdin: Path | None = None,
) -> Plan | None:
    """
    The plan of the chosen jobs as one was made before, which counted *runs* by job and read *inputs* by absolute path.

    Data files are digested and not parsed. None where one of them is another, or where `make_plan` has to look: the
    rest of what the plan is made of is for the caller to compare.
    """
    jobs: dict[str, JobPlan] = {}
    files: dict[Path, InputFile] = {}
    for name in job_file.chosen(only):
        job = job_file.jobs[name]
        source = source_of(job.rows, job_file.folder, stdin)
        if name not in runs or source is None or job.rows.shuffle is not None or not source.recall(inputs):
            return None
        combinations = JobPlan.combinations_of(job.rows)
        plan = JobPlan(name, job, runs[name], source, job_file.templates[name], job_file.vars, combinations)
        try:
            if any(artifact_paths.shared(("jobs", name), job, plan.runs)) or plan.first_trouble() is not None:
                return None
        except (BadRow, RenderError, OSError):
            return None
        jobs[name] = plan
        files |= {file.path: file for file in source.files}
    return Plan(jobs, tuple(files.values()))


def _plan_job(job_file: JobFile, name: str, limit: int | None, source: Source) -> JobPlan:
    job = job_file.jobs[name]
    combinations = JobPlan.combinations_of(job.rows)
    plan = JobPlan(name, job, 0, source, job_file.templates[name], job_file.vars, combinations)
    plan = _counted(job_file, plan)
    shared = [job_file.document.problem(one) for one in artifact_paths.shared(("jobs", name), job, plan.runs)]
    if shared:
        raise JobFileError(shared)
    plan = replace(plan, runs=plan.runs if limit is None else min(plan.runs, limit))
    trouble = plan.first_trouble()
    if trouble is not None:
        message = f"the first run of job '{name}' can't be rendered: {trouble.message}"
        raise JobFileError([job_file.problem(trouble.loc, message)])
    return plan


def _counted(job_file: JobFile, plan: JobPlan) -> JobPlan:
    """*plan* with its runs; every bad row of its data files is a problem."""
    bad: list[BadRow] = []

    def report(row: BadRow) -> None:
        if len(bad) == MAX_BAD_ROWS:
            raise _Enough
        bad.append(row)

    try:
        rows, order = plan.chosen(report)
        plan = plan if bad else plan.with_rows(rows, order)
    except _Enough:
        pass
    except BadRow as row:
        bad.append(row)
    except RenderError as error:
        raise JobFileError([job_file.problem(error.loc, error.message)]) from None
    except OSError as error:
        loc = ("jobs", plan.name, "rows", "file")
        raise JobFileError([job_file.problem(loc, f"can't be read: {error.strerror or error}")]) from None
    if bad:
        raise JobFileError([Problem(r.file or "", r.line, r.column, r.message, r.fix, r.source) for r in bad])
    return plan


class _Enough(Exception):
    """Raised when more bad rows wouldn't tell anything new."""
