"""Compile a job's templates and expressions: what is wrong with one is told with its place, and the rest goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runner import render, spec
from runner.artifact_paths import path_problem
from runner.errors import Problem
from runner.known import Known
from runner.load import Document
from runner.lookups import compile_lookups
from runner.render import Render, RenderError, Scope
from runner.spec import Job, found
from runner.values import JsonValue
from runner.wording import Finding, Loc


class ArtifactTemplate(NamedTuple):
    """
    An artifact, compiled: *path* and *value* see run, row, matrix, repeat and vars, *value* also output.

    *path* gives a text that is a relative path without ``..``, and raises RenderError for anything else.
    """

    path: Callable[[Scope], str]
    kind: str
    value: Render


@dataclass(frozen=True, slots=True)
class Templates:
    """
    What a job's rows and outputs are put through, compiled.

    *where* is None when every row is kept. *success_when* is None when every completed run succeeds; it sees output
    (only when there is one), status, row, matrix, vars, repeat, execution_time_ms and delay_time_ms, gives true or
    false, and raises RenderError for anything else.
    """

    input: Render
    where: Render | None
    success_when: Render | None = None
    artifacts: tuple[ArtifactTemplate, ...] = ()


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
            path = self._path((*at, "path"), artifact.path, known.for_path())
            for kind in artifact.kinds:
                value = getattr(artifact, spec.attribute(kind))
                made = self._templates((*at, kind), value, known.for_artifact(), of_output=True)
                compiled.append(ArtifactTemplate(path, kind, made))
        return tuple(compiled)

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
        compiled = None if expression else compile_lookups(text, loc, shared=of_output)
        if compiled is None:
            from runner import template  # jinja2: 50 ms that a file without more than lookups needn't pay

            try:
                if expression:
                    compiled = template.compile_expression(text, loc, example=_EXAMPLES[str(loc[-1])])
                else:
                    compiled = template.compile_text(text, loc, folder=None if of_output else self._folder)
            except template.TemplateProblem as problem:
                spot = self._document.spot(loc, problem.pattern) if problem.pattern else None
                self._problems.append(self._document.problem(Finding(loc, problem.message, problem.fix), column=spot))
                return lambda _scope: None
        for message, fix, pattern in known.problems(compiled.names, compiled.uses):
            spot = self._document.spot(loc, pattern)
            self._problems.append(self._document.problem(Finding(loc, message, fix), column=spot))
        return compiled.render

    def _expression(self, loc: Loc, text: str | None, known: Known) -> Render | None:
        if text is None:
            return None
        if text.lstrip().startswith("{{"):
            example = _EXAMPLES[str(loc[-1])]
            message, fix = f"'{loc[-1]}' is an expression, not a template", "write it without {{ }}, such as " + example
            self._problems.append(self._document.problem(Finding(loc, message, fix)))
            return None
        return self._compile(loc, text, known, expression=True)


_EXAMPLES = {"where": "row.lang == 'en'", "success_when": "output.image is defined"}
