"""Narrow the rows of a job file's jobs as the command line says: to a slice of them, and to those of an expression."""

from dataclasses import replace

from runner.check import JobFile, Templates
from runner.errors import UsageError
from runner.known import Known
from runner.render import Render, RenderError, Scope
from runner.row_slice import RowSlice
from runner.spec import SOURCES, Job, found
from runner.wording import Loc

_AT: Loc = ("--where",)


def narrowed(job_file: JobFile, *, rows: RowSlice | None = None, where: str | None = None) -> JobFile:
    """
    *job_file*, of whose jobs each takes only those rows that *where* keeps, too, and of these the slice *rows*.

    None leaves all of them. A job without rows, or whose rows are another job's runs, stays as it is.

    Raises:
        UsageError: *where* is no expression, or reads what the rows of a job have not; or no job has rows.
    """
    jobs = {name: job for name, job in job_file.jobs.items() if has_rows(job)}
    if not jobs and (rows is not None or where is not None):
        option = "--where" if rows is None else "--rows"
        raise UsageError(f"{option} chooses among rows, and no job in {job_file.document.file} has any")
    if rows is not None:
        job_file = replace(job_file, part=rows)
    if where is None:
        return job_file
    asked = {name: _asked(job_file.templates[name], where, _known(job_file, job)) for name, job in jobs.items()}
    return replace(job_file, templates={**job_file.templates, **asked})


def has_rows(job: Job) -> bool:
    """Whether *job* has rows of its own."""
    return any(getattr(job.rows, key) is not None for key in SOURCES)


def _known(job_file: JobFile, job: Job) -> Known:
    return Known.of(job_file.vars, job.rows.model_dump(by_alias=True, exclude_none=True)).rows_only()


def _asked(templates: Templates, where: str, known: Known) -> Templates:
    return replace(templates, where=_both(templates.where, _compiled(where, known)))


def _compiled(text: str, known: Known) -> Render:
    from runner import template  # jinja2: 50 ms

    try:
        compiled = template.compile_expression(text, _AT)
    except template.TemplateProblem as problem:
        raise UsageError(f"--where {text!r}: {problem.message}", fix=problem.fix) from None
    for message, fix, _ in known.problems(compiled.names, compiled.uses):
        raise UsageError(f"--where {text!r}: {message}", fix=fix)
    return compiled.render


def _both(written: Render | None, more: Render) -> Render:
    """What says whether *written*, the file's, and *more* both keep a row."""

    def keeps(scope: Scope) -> object:
        kept = True if written is None else written(scope)
        if kept is not True:
            return kept
        try:
            value = more(scope)
        except RenderError as error:
            raise RenderError(error.loc, f"--where: {error.message}") from None
        if not isinstance(value, bool):
            raise RenderError(_AT, f"--where: expected true or false, found {found(value)}")
        return value

    return keeps
