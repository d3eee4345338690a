"""Compile a job's templates and expressions: what is wrong with one is told with its place, and the rest goes on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from runner import needs, render, spec
from runner.artifact_paths import path_problem, reads
from runner.errors import Problem
from runner.known import Known
from runner.load import Document
from runner.lookups import compile_lookups
from runner.output_schema import Fits, SchemaProblem, compile_schema
from runner.records import record
from runner.render import Render, RenderError, Scope
from runner.spec import Job, found
from runner.values import JsonObject, JsonValue
from runner.wording import Finding, Loc, suggest


class ArtifactTemplate(NamedTuple):
    """
    An artifact, compiled: *path* and *value* see run, row, matrix, repeat and vars, *path* also ext, *value* output.

    *path* gives a text that is a relative path without ``..``, and raises RenderError for anything else. *items* gives
    a list, each of whose parts makes a file, and is seen as item with its item_index; None where there is no ``for``.
    *by_type*: the path may be another one for another ext. *most_bytes* is None where the file sets no limit.
    """

    path: Callable[[Scope], str]
    kind: str
    value: Render
    items: Callable[[Scope], list[JsonValue]] | None = None
    by_type: bool = False
    most_bytes: int | None = None


@record(frozen=True, slots=True)
class Templates:
    """
    What a job's rows and outputs are put through, compiled.

    *where* is None when every row is kept. *success_when* is None when every completed run succeeds; it sees output
    (only when there is one), status, row, matrix, vars, repeat, execution_time_ms and delay_time_ms, gives true or
    false, and raises RenderError for anything else. *when* does the same with jobs and vars; None where none is
    written. So does *retry_when*, which also sees outcome, error and attempts; None where the outcome alone decides.
    *fits* says what is wrong with an output by the job's schema; None where it has none. *cost* gives an amount in USD,
    a number of at least 0, and raises RenderError for anything else; it sees what *success_when* does. None where no
    output tells it.
    """

    input: Render
    where: Render | None
    success_when: Render | None = None
    artifacts: tuple[ArtifactTemplate, ...] = ()
    when: Render | None = None
    retry_when: Render | None = None
    fits: Fits | None = None
    cost: Callable[[Scope], float] | None = None


class Compiler:
    """Compiles what jobs of one file are put through, and notes problems in *problems*."""

    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self._document = document
        self._folder: Path = document.path.parent
        self._problems = problems

    def templates(self, loc: Loc, job: Job, known: Known) -> Templates:
        """Everything of the job at *loc*, whose templates may read what is *known*."""
        return Templates(
            input=self._templates((*loc, "input"), job.input, known),
            where=self._expression((*loc, "rows", "where"), job.rows.where, known.rows_only()),
            success_when=self._success_when((*loc, "success_when"), job.success_when, known.for_success()),
            artifacts=self._artifacts(loc, job, known),
            when=self._when((*loc, "when"), job, known),
            retry_when=self._success_when((*loc, "retry_when"), job.retry_when, known.for_retry()),
            fits=self._fits((*loc, "output_schema"), job.output_schema),
            cost=self._cost((*loc, "cost"), job.cost, known.for_success()),
        )

    def _templates(self, loc: Loc, value: JsonValue, known: Known, *, of_output: bool = False) -> Render:
        def compile_text(text: str, at: Loc) -> Render:
            return self._compile(at, text, known, of_output=of_output)

        self._slips(loc, value)
        return render.build(value, loc, compile_text)

    def _artifacts(self, loc: Loc, job: Job, known: Known) -> tuple[ArtifactTemplate, ...]:
        compiled = []
        for number, artifact in enumerate(job.artifacts):
            at: Loc = (*loc, "artifacts", number)
            has_items = artifact.for_ is not None
            items = self._items((*at, "for"), artifact.for_, known.for_artifact())
            path = self._path((*at, "path"), artifact.path, known.for_path(has_items=has_items))
            for kind in artifact.kinds:
                value = getattr(artifact, spec.attribute(kind))
                made = self._templates((*at, kind), value, known.for_artifact(has_items=has_items), of_output=True)
                by_type = reads(artifact, "ext")
                compiled.append(ArtifactTemplate(path, kind, made, items, by_type, artifact.most_bytes))
        return tuple(compiled)

    def _items(self, loc: Loc, text: str | None, known: Known) -> Callable[[Scope], list[JsonValue]] | None:
        compiled = self._expression(loc, text, known, of_output=True)
        if compiled is None:
            return None

        def list_items(scope: Scope) -> list[JsonValue]:
            value = compiled(scope)
            if not isinstance(value, list):
                raise RenderError(loc, f"expected a list, found {found(value)}")
            return value

        return list_items

    def _fits(self, loc: Loc, schema: JsonObject | str | None) -> Fits | None:
        if not isinstance(schema, dict):
            return None
        try:
            return compile_schema(schema)
        except SchemaProblem as problem:
            message, written = problem.message, self._written(loc)
            if isinstance(written, str):
                message = f"{found(written)}{'/'.join(('', *map(str, problem.path)))}: {message}"
            self._problems.append(self._document.problem(Finding((*loc, *problem.path), message, problem.fix)))
            return None

    def _written(self, loc: Loc) -> JsonValue:
        """What the file has at *loc*; None where it has nothing there."""
        value = self._document.value
        for part in loc:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def _path(self, loc: Loc, text: str, known: Known) -> Callable[[Scope], str]:
        compiled = self._templates(loc, text, known, of_output=True)

        def render_path(scope: Scope) -> str:
            value = compiled(scope)
            path = str(value) if type(value) is int else value
            if not isinstance(path, str):
                raise RenderError(loc, f"expected a path, found {found(path)}")
            trouble = path_problem(path, rendered=True)
            if trouble:
                raise RenderError(loc, f"{trouble[0]}: {found(path)}")
            return path

        return render_path

    def _success_when(self, loc: Loc, text: str | None, known: Known) -> Render | None:
        compiled = self._expression(loc, text, known)
        if compiled is None:
            return None

        def render_truth(scope: Scope) -> bool:
            value = compiled(scope)
            if not isinstance(value, bool):
                raise RenderError(loc, f"expected true or false, found {found(value)}")
            return value

        return render_truth

    def _cost(self, loc: Loc, text: str | None, known: Known) -> Callable[[Scope], float] | None:
        compiled = self._expression(loc, text, known, of_output=True)
        if compiled is None:
            return None

        def render_amount(scope: Scope) -> float:
            value = compiled(scope)
            if type(value) not in (int, float) or not 0 <= value <= MOST_USD:
                raise RenderError(loc, f"expected an amount of USD, at least 0, found {found(value)}")
            return float(value)

        return render_amount

    def _when(self, loc: Loc, job: Job, known: Known) -> Render | None:
        before = len(self._problems)
        when = self._success_when(loc, job.when, known.for_when(needs.needed(job)))
        if when is None or len(self._problems) > before:
            return None
        try:
            when({"jobs": needs.sample(job), "vars": dict.fromkeys(known.vars)})
        except RenderError as error:  # what it says of numbers depends on them; a name is wrong for all
            unknown = _NO_KEY.match(error.message)
            if unknown is not None and unknown[1] not in known.vars:
                finding = Finding(loc, f"'when' sees no '{unknown[1]}' of a job", suggest(unknown[1], needs.COUNTED))
                spot = self._document.spot(loc, rf"\b({re.escape(unknown[1])})\b")
                self._problems.append(self._document.problem(finding, column=spot))
            elif error.message.startswith("expected true or false"):
                finding = Finding(loc, "'when' is neither true nor false", f"compare, such as {_EXAMPLES['when']}")
                self._problems.append(self._document.problem(finding))
        return when

    def _slips(self, loc: Loc, value: JsonValue) -> None:
        """``${{ x }}``, which elsewhere is a template."""
        if isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                self._slips((*loc, key), item)
        elif isinstance(value, str) and "${{" in value:
            spot = self._document.spot(loc, r"\$\{\{")
            finding = Finding(
                loc, "'${{' is not a template", "write {{ x }}; for a dollar sign before a value write {{ '$' }}{{ x }}"
            )
            self._problems.append(self._document.problem(finding, column=spot))

    def _compile(
        self, loc: Loc, text: str, known: Known, *, expression: bool = False, of_output: bool = False
    ) -> Render:
        """*text* compiled, its names checked; what is wrong with it is noted."""
        if "${{" in text and not expression:
            return lambda _scope: None
        lookups = f"{{{{ {text.strip()} }}}}" if expression and of_output else text
        compiled = None if expression and not of_output else compile_lookups(lookups, loc, shared=of_output)
        if compiled is None:
            from runner import template  # jinja2: 50 ms that a file without more than lookups needn't pay

            try:
                if expression:
                    compiled = template.compile_expression(text, loc, example=_EXAMPLES[str(loc[-1])])
                else:
                    folder = None if of_output else self._folder
                    of_job = known.has_artifacts and not of_output
                    compiled = template.compile_text(text, loc, folder=folder, of_job=of_job)
            except template.TemplateProblem as problem:
                spot = self._document.spot(loc, problem.pattern) if problem.pattern else None
                self._problems.append(self._document.problem(Finding(loc, problem.message, problem.fix), column=spot))
                return lambda _scope: None
        for message, fix, pattern in known.problems(compiled.names, compiled.uses):
            spot = self._document.spot(loc, pattern)
            self._problems.append(self._document.problem(Finding(loc, message, fix), column=spot))
        return compiled.render

    def _expression(self, loc: Loc, text: str | None, known: Known, *, of_output: bool = False) -> Render | None:
        if text is None:
            return None
        if text.lstrip().startswith("{{"):
            example = _EXAMPLES[str(loc[-1])]
            message, fix = f"'{loc[-1]}' is an expression, not a template", "write it without {{ }}, such as " + example
            self._problems.append(self._document.problem(Finding(loc, message, fix)))
            return None
        return self._compile(loc, text, known, expression=True, of_output=of_output)


MOST_USD = 1e9
"""What an attempt costs at most: a number above is no amount of money."""

_NO_KEY = re.compile(r"there is no '([^']+)' here")
_EXAMPLES = {
    "where": "row.lang == 'en'",
    "success_when": "output.image is defined",
    "retry_when": "outcome == 'crashed'",
    "for": "output.images",
    "cost": "output.usage.cost_usd",
    "when": "jobs.captions.failed == 0",
}
