"""
Expand a job into its runs (rows x matrix x repeat, with stable keys), lazily.

Planning reads the data twice. The first pass counts and digests, so that a bad row or a bad expression is known before
anything is sent; the second hands out runs one at a time, in constant memory, and refuses a file that has changed.
"""

import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from runner import artifact_paths, matrix, render, values
from runner.check import EMPTY_INPUT, JobFile, Templates, empty
from runner.errors import JobFileError, Problem, UsageError, told_once
from runner.inputs import shuffle
from runner.inputs.base import BadRow, Report
from runner.inputs.source import Inline, InputFile, Source
from runner.inputs.sources import source_of
from runner.narrow import has_rows
from runner.needs import in_order
from runner.records import record
from runner.render import BATCH, RenderError, Scope
from runner.row_slice import ALL, RowSlice
from runner.runs import Occurrences as Occurrences
from runner.runs import Run as Run
from runner.shards import WHOLE, Shard
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


class _Noting:
    """Counts by *occurrences*, and notes whether any two were equal."""

    def __init__(self, occurrences: Occurrences) -> None:
        self.are_equal = False
        self._count = occurrences.count

    def count(self, digest: bytes) -> int:
        before = self._count(digest)
        self.are_equal = self.are_equal or before > 0
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


@record(frozen=True)
class JobPlan:
    """
    A job and its *runs*, counted exactly; where its rows are another job's runs, how many there are at most.

    *cut* is how many the command line lets through, None for all. In a shard *runs* are its own.
    """

    name: str
    job: Job
    runs: int
    _source: Source
    _templates: Templates
    _vars: JsonObject
    _combinations: Sequence[JsonObject | None]
    _shuffled: shuffle.Spool | None = None
    cut: int | None = None
    _batch: str | None = None
    _part: RowSlice = ALL
    _picked: "array[int] | None" = None
    _shard: Shard = WHOLE
    _of_all: int | None = None
    _own: bytearray | None = None

    @property
    def whole(self) -> int:
        """How many runs all shards have together; its own where there are no shards."""
        return self.runs if self._of_all is None else self._of_all

    @property
    def products(self) -> int:
        """How many runs each row makes: combinations x repeat."""
        return len(self._combinations) * self.job.rows.repeat

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
        if self.job.rows.job is not None:
            return array("Q")  # they are known once that job's runs are
        products = self.products
        rows = itertools.islice(self._kept(_raise), -(-self.whole // products) if products else 0)
        return array("Q", (row_digest(row) for row in rows))

    @staticmethod
    def combinations_of(rows: Rows) -> Sequence[JsonObject | None]:
        """What each row of *rows* is run with; None where there is no matrix."""
        return matrix.combinations(rows) if rows.matrix or rows.include else [None]

    def _runs(self, occurrences: Occurrences, same: "Same | None") -> Iterator[Run]:
        if not self.runs:
            return
        index, whole, shard, own = 0, self.whole, self._shard if self._shard.of > 1 else None, self._own
        for row in self._kept(_raise):
            is_there = same is None or same.has_row(row)
            for row_, combination, repeat in self._products(row):
                is_ours = own is None or bool(own[index >> 3] & 1 << (index & 7))
                if is_ours and (same is None or (is_there and same.has(combination, repeat))):
                    run = self._run(index, row_, combination, repeat, occurrences)
                    if shard is None or shard.has(run.key):
                        yield run
                index += 1
                if index == whole:
                    self._source.verify()
                    return
        if index < whole:
            raise UsageError(f"job '{self.name}' has {index} runs, planned were {whole}", fix="start again")

    def in_shard(self, shard: Shard, counted: Occurrences) -> "JobPlan":
        """
        Of this plan, which is of all runs, those of *shard*. Every run is rendered once to know its key; *counted* has
        counted none.

        Where no two are equal, whose keys need all to be counted, the runs of other shards need not be rendered again.

        Raises:
            UsageError: as for `expand`.
        """
        own, runs, noting = bytearray(self.runs + 7 >> 3), 0, _Noting(counted)
        for run in self.expand(noting):
            if shard.has(run.key):
                own[run.index >> 3] |= 1 << (run.index & 7)
                runs += 1
        plan = replace(self, runs=runs, _shard=shard, _of_all=self.runs)
        return plan if noting.are_equal else replace(plan, _own=own)

    def at_most(self, upstream: int) -> int:
        """How many runs it has at most when the job that its rows come from has *upstream* of them."""
        rows = 1 if self.job.rows.collect else upstream
        runs = min(rows, self.job.rows.limit or rows) * self.products
        return runs if self.cut is None else min(runs, self.cut)

    def of_batch(self, folder: Path) -> "JobPlan":
        """This plan in the batch in *folder*, whose artifacts its inputs may read: for one whose rows are runs."""
        return replace(self, _batch=str(folder))

    def of_row(self, row: JsonObject, number: int, occurrences: Occurrences) -> Iterator[Run]:
        """
        The runs made of *row*, which another job gave, *number* being its place among that job's rows; none where
        `where` drops it, and where the command line cuts them off.
        """
        problem = None
        try:
            if self._templates.where is not None and not self._keeps(row, None):
                return
        except RenderError as error:
            problem = f"{'.'.join(map(str, error.loc[2:]))}: {error.message}"
        for index, parts in self._numbered(number, row):
            yield self._run(index, *parts, occurrences, problem)

    def skipped(self, row: JsonObject, number: int, why: str, occurrences: Occurrences) -> Iterator[Run]:
        """The runs that are skipped, and *why*: *row*, at the place *number*, is of a run with nothing to give."""
        for index, (row_, combination, repeat) in self._numbered(number, row):
            keyed = {"upstream": row.get("key"), "matrix": combination, "repeat": repeat}
            key = _key(self.name, keyed, occurrences)
            yield Run(self.name, index, key, row_, combination, repeat, None, skip=why)

    def _numbered(
        self, number: int, row: JsonObject
    ) -> Iterator[tuple[int, tuple[JsonObject | None, JsonObject | None, int]]]:
        for index, parts in enumerate(self._products(row), number * self.products):
            if self.cut is None or index < self.cut:
                yield index, parts

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
        self,
        index: int,
        row: JsonObject | None,
        combination: JsonObject | None,
        repeat: int,
        occurrences: Occurrences,
        problem: str | None = None,
    ) -> Run:
        rendered = None
        try:
            rendered = None if problem is not None else self._rendered(row, combination, repeat)
        except RenderError as error:
            problem = f"{'.'.join(map(str, error.loc[2:]))}: {error.message}"
        keyed = rendered if problem is None else {"row": row, "matrix": combination}
        key = _key(self.name, keyed, occurrences)
        return Run(self.name, index, key, row, combination, repeat, rendered, problem)

    def _rendered(self, row: JsonObject | None, combination: JsonObject | None, repeat: int) -> JsonValue:
        scope: Scope = {"row": row, "matrix": combination, "vars": self._vars, "repeat": repeat}
        if self._batch is not None:
            scope[BATCH] = self._batch
        rendered = self._templates.input(scope)
        if not rendered:
            shown = empty(rendered)
            raise RenderError(("jobs", self.name, "input"), f"an empty input, {shown}, never arrives: {EMPTY_INPUT}")
        return rendered

    def _kept(self, report: Report) -> Iterator[JsonObject | None]:
        """
        Rows after `where`, `sample`, `shuffle` and `limit`, in order; of these those that the command line means.

        Raises:
            RenderError: `where` fails on a row, or is neither true nor false there.
        """
        if self._shuffled is not None:
            return self._shuffled.rows()
        if self._picked is not None:
            return self._pick(self._picked, report)
        start, stop = self._part.within(self.job.rows.limit)
        return itertools.islice((row for _, row in self._matching(report, stop)), start, stop)

    def _pick(self, numbers: "array[int]", report: Report) -> Iterator[JsonObject | None]:
        """The rows of these *numbers* in the source, in its order; what is behind the last of them is not read."""
        rows = enumerate(self._source.rows(report))
        for wanted in numbers:
            yield next(row for number, row in rows if number == wanted)

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

    def _keeps(self, row: JsonObject | None, number: int | None) -> bool:
        """Whether `where` keeps *row*, which a message calls by its *number*, unless that is None."""
        where, loc = self._templates.where, ("jobs", self.name, "rows", "where")
        try:
            keep = where({"row": row, "vars": self._vars}) if where else True
        except RenderError as error:
            raise RenderError(loc, f"{_row(number)}{error.message}") from None
        if not isinstance(keep, bool):
            raise RenderError(loc, f"{_row(number)}expected true or false, found {found(keep)}")
        return keep

    def first_trouble(self) -> RenderError | None:
        """Why the first run can't be rendered; None when it can, and when there is none."""
        if not self.runs or self.job.rows.job is not None:
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
        How many rows there are to run, and their numbers where chance has a part in it.

        Reads the whole of every data file, so that it is digested.
        """
        rows = self.job.rows
        if rows.shuffle is None and rows.sample is None:
            return self._part.count(sum(1 for _ in self._matching(report, rows.limit))), None
        numbers: Iterable[int] = (number for number, _ in self._matching(report, None))
        if rows.sample is not None:
            numbers = shuffle.sample(numbers, rows.sample.seed, rows.sample.size)
        if rows.shuffle is None:
            order = array("Q", itertools.islice(numbers, rows.limit))
        else:
            order = shuffle.order(numbers, rows.shuffle, rows.limit)
        order = order[self._part.start : self._part.stop]
        return len(order), order

    def with_rows(self, rows: int, order: "array[int] | None") -> "JobPlan":
        """This plan, of *rows*; those in *order* are read once more, and kept aside, unless it is the source's own."""
        plan = replace(self, runs=rows * len(self._combinations) * self.job.rows.repeat)
        if order is None or self.job.rows.shuffle is None:
            return replace(plan, _picked=order)
        return replace(plan, _shuffled=shuffle.Spool(self._source.rows(_raise), order))


def _raise(row: BadRow) -> None:
    """The report of a second pass: a row that has turned bad since the first means another file."""
    raise row


def _row(number: int | None) -> str:
    return "" if number is None else f"row {number}: "


def _key(job: str, keyed: JsonValue, occurrences: Occurrences) -> str:
    digest = blake2b(values.canonical([job, keyed]), digest_size=16)
    number = occurrences.count(digest.digest())
    digest.update(b"#%d" % number)
    return digest.hexdigest()


@record(frozen=True)
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
    chosen = job_file.chosen(only)
    for name in in_order(job_file.jobs, chosen):
        rows = job_file.jobs[name].rows
        if rows.job is not None and rows.job not in jobs:
            continue  # what is wrong with that job is told, and enough
        source = source_of(rows, job_file.folder, stdin) if rows.job is None else Inline([])
        if source is None:
            loc = ("jobs", name, "rows", "file")
            notes.append(job_file.problem(loc, "rows from stdin are not checked", warning=True))
        try:
            upstream = None if rows.job is None else jobs[rows.job]
            jobs[name] = _plan_job(job_file, name, limit, source or Inline([]), upstream)
        except JobFileError as error:
            problems += error.found
            continue
        files |= {file.path: file for file in jobs[name].files}
    if problems:
        raise JobFileError(problems)
    return Plan({name: jobs[name] for name in chosen}, tuple(files.values()), tuple(told_once(notes)))


def no_plan(job_file: JobFile, *, only: Sequence[str] = (), limit: int | None = None) -> Plan:
    """A plan of the chosen jobs that has no run, whatever their data are, but those that are made of others' runs."""
    return Plan({name: _unplanned(job_file, name, Inline([]), limit) for name in job_file.chosen(only)}, ())


def recalled(
    job_file: JobFile,
    runs: Mapping[str, int],
    inputs: Mapping[Path, InputFile],
    *,
    only: Sequence[str] = (),
    limit: int | None = None,
    stdin: Path | None = None,
) -> Plan | None:
    """
    The plan of the chosen jobs as one was made before, which counted *runs* by job and read *inputs* by absolute path.

    Data files are digested and not parsed. None where one of them is another, or where `make_plan` has to look: the
    rest of what the plan is made of is for the caller to compare.
    """
    if job_file.shard.of > 1:
        return None  # which runs are its own, only their keys tell
    jobs: dict[str, JobPlan] = {}
    files: dict[Path, InputFile] = {}
    for name in job_file.chosen(only):
        job = job_file.jobs[name]
        source = source_of(job.rows, job_file.folder, stdin) if job.rows.job is None else Inline([])
        by_chance = job.rows.shuffle is not None or job.rows.sample is not None  # whose order is kept nowhere
        if name not in runs or source is None or by_chance or not source.recall(inputs):
            return None
        plan = replace(_unplanned(job_file, name, source, limit), runs=runs[name])
        try:
            if any(artifact_paths.shared(("jobs", name), job, plan.runs)) or plan.first_trouble() is not None:
                return None
        except (BadRow, RenderError, OSError):
            return None
        jobs[name] = plan
        files |= {file.path: file for file in source.files}
    return Plan(jobs, tuple(files.values()))


def _unplanned(job_file: JobFile, name: str, source: Source, limit: int | None) -> JobPlan:
    """The plan of a job whose rows were not counted: it has no run yet."""
    job = job_file.jobs[name]
    combinations = JobPlan.combinations_of(job.rows)
    part = job_file.part if has_rows(job) else ALL
    return JobPlan(name, job, 0, source, job_file.templates[name], job_file.vars, combinations, cut=limit, _part=part)


def _plan_job(
    job_file: JobFile, name: str, limit: int | None, source: Source, upstream: JobPlan | None = None
) -> JobPlan:
    """The plan of a job; *upstream* is that of the one whose runs are its rows, None where its rows are there now."""
    plan = _unplanned(job_file, name, source, limit)
    job = plan.job
    plan = _counted(job_file, plan) if upstream is None else replace(plan, runs=plan.at_most(upstream.runs))
    shared = [job_file.document.problem(one) for one in artifact_paths.shared(("jobs", name), job, plan.runs)]
    if shared:
        raise JobFileError(shared)
    plan = replace(plan, runs=plan.runs if limit is None else min(plan.runs, limit))
    trouble = plan.first_trouble()
    if trouble is not None:
        message = f"the first run of job '{name}' can't be rendered: {trouble.message}"
        raise JobFileError([job_file.problem(trouble.loc, message)])
    return plan if job_file.shard.of == 1 else _in_shard(plan, job_file.shard)


def _in_shard(plan: JobPlan, shard: Shard) -> JobPlan:
    from runner.occurrences import KeyIndex  # sqlite3

    with closing(KeyIndex()) as counted:
        return plan.in_shard(shard, counted)


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
