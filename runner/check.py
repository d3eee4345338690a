"""
Open a job file: load it, then check what no model can see by itself, every problem with its place.

Cross-references, templates, expressions, RunPod's bounds, files on disk, environment variables.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner import artifact_paths, limits, matrix, startup, values, variables
from runner.compiler import ArtifactTemplate as ArtifactTemplate
from runner.compiler import Compiler
from runner.compiler import Templates as Templates
from runner.errors import JobFileError, Problem, UsageError
from runner.inputs.find import STDIN, data_file_problem
from runner.known import Known
from runner.load import Document, Loaded, load
from runner.spec import Endpoint, Health, Job, JobFileSpec, LocalEndpoint, Outputs, RemoteEndpoint, found
from runner.thresholds import Threshold
from runner.values import JsonObject, JsonValue
from runner.wording import Finding, Loc, suggest


@dataclass(frozen=True)
class JobFile:
    """
    A checked job file.

    *vars* are resolved, overrides applied. *endpoints* keep their references: `runner.variables.resolve` gives the
    values when they are sent. *sha256* is of the file's bytes.
    """

    path: Path
    folder: Path
    sha256: str
    name: str
    description: str
    vars: JsonObject
    overrides: Mapping[str, str]
    endpoints: dict[str, Endpoint]
    jobs: dict[str, Job]
    outputs: Outputs
    health: Health
    thresholds: Mapping[str, Threshold]
    spec: JobFileSpec
    warnings: tuple[Problem, ...]
    templates: Mapping[str, Templates] = field(repr=False)
    document: Document = field(repr=False)

    def problem(self, loc: Loc, message: str, fix: str | None = None, *, warning: bool = False) -> Problem:
        """A problem at the place that *loc* names, such as ``("jobs", "photos", "rows", "file")``."""
        return self.document.problem(Finding(loc, message, fix), warning=warning)

    def chosen(self, only: Sequence[str] = ()) -> list[str]:
        """The jobs to run, in file order.

        Raises:
            UsageError: *only* names a job that the file has not.
        """
        for name in only:
            if name not in self.jobs:
                raise UsageError(f"unknown job '{name}' in {self.document.file}", fix=suggest(name, self.jobs))
        return [name for name in self.jobs if not only or name in only]

    def reads_stdin(self, only: Sequence[str] = ()) -> bool:
        """Whether rows of a job that is to run come from stdin."""
        return any(self.jobs[name].rows.file == STDIN for name in self.chosen(only))


def open_job_file(
    path: Path,
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    only: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    env_required: bool = False,
) -> JobFile:
    """
    Load and check the job file at *path*.

    Args:
        overrides: Values for `vars`, by name, as ``--var`` gives them. They take the type the file has.
        only: Jobs that will run; the environment is looked at for their endpoints only. Empty: all of them.
        env: The environment; None is this process's.
        env_required: Whether an unset variable is an error instead of a warning.

    Raises:
        JobFileError: the file is invalid; every problem is in it.
        UsageError: *overrides* or *only* name what the file has not.
    """
    loaded = load(path)
    check = _Check(loaded, os.environ if env is None else env, overrides, only, env_required)
    return check.job_file()


class _Check:
    """The checks of one file. Each notes problems and goes on."""

    def __init__(
        self,
        loaded: Loaded,
        env: Mapping[str, str],
        overrides: Mapping[str, str],
        only: Sequence[str],
        required: bool,
    ) -> None:
        self.document = loaded.document
        self.problems = list(loaded.problems)
        self.warnings: list[Problem] = []
        self.folder = loaded.document.path.parent
        self._spec = loaded.spec
        self._env = env
        self._overrides = overrides
        self._only = only
        self._required = required
        self._compiler = Compiler(self.document, self.problems)

    def job_file(self) -> JobFile:
        """The job file, when nothing is wrong with it."""
        parts = self._spec
        templates: dict[str, Templates] = {}
        vars_: JsonObject = {}
        if parts is not None:
            vars_ = self._vars(parts.vars)
            for name, endpoint in parts.endpoints.items():
                self._endpoint(name, endpoint)
            for name, job in parts.jobs.items():
                templates[name] = self._job(name, job)
            self._costs(parts)
            self._environment(parts)
        if self.problems or parts is None:
            raise JobFileError([*self.problems, *self.warnings])
        job_file = JobFile(
            path=self.document.path,
            folder=self.folder,
            sha256=self.document.sha256,
            name=parts.name,
            description=parts.description,
            vars=vars_,
            overrides=dict(self._overrides),
            endpoints=parts.endpoints,
            jobs=parts.jobs,
            outputs=parts.outputs,
            health=parts.health,
            thresholds=parts.thresholds,
            spec=parts,
            warnings=tuple(sorted(self.warnings, key=lambda p: (p.line, p.column))),
            templates=templates,
            document=self.document,
        )
        job_file.chosen(self._only)
        return job_file

    def _add(
        self, loc: Loc, message: str, fix: str | None = None, *, at_key: bool = False, warning: bool = False
    ) -> None:
        noted = self.warnings if warning else self.problems
        noted.append(self.document.problem(Finding(loc, message, fix, at_key), warning=warning))

    def _raw(self, *loc: str) -> Any:
        """What the file has at *loc*, valid or not; None when there is nothing."""
        value: Any = self.document.value
        for part in loc:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    # Variables and vars

    def _vars(self, declared: JsonObject) -> JsonObject:
        for name in declared:
            if variables.sounds_secret(name):
                self._add(
                    ("vars", name),
                    f"'{name}' sounds secret, and vars are public: they are recorded",
                    _NO_SECRETS,
                    at_key=True,
                )
        for name in self._overrides:
            if name not in declared and name not in (self._raw("vars") or {}):
                raise UsageError(
                    f"unknown variable '{name}' in {self.document.file}",
                    fix=suggest(name, declared) or "the file has no vars",
                )
        return {
            name: _overridden(name, value, self._overrides[name])
            if name in self._overrides
            else self._resolved(value, ("vars", name))
            for name, value in declared.items()
        }

    def _resolved(self, value: JsonValue, loc: Loc) -> JsonValue:
        """*value* of vars with its references replaced; one that is unset stays as it is, and is told."""
        if isinstance(value, dict):
            return {key: self._resolved(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item, (*loc, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or not self._well_formed(value, loc):
            return value
        for name in variables.names(value):
            if variables.sounds_secret(name):
                message = f"environment variable '{name}' sounds secret, and vars are public: they are recorded"
                self._add(loc, message, _NO_SECRETS)
        if self._unset(value, loc):
            return value
        return variables.resolve(value, self._env)

    def _well_formed(self, text: str, loc: Loc) -> bool:
        odd = variables.malformed(text)
        if odd is None:
            return True
        if odd.startswith("${{"):
            self._add(loc, "'${{' is not a reference", "write ${VAR}; {{ x }} is for templates")
        else:
            fix = "write ${VAR} or ${VAR:-default}, the name of letters, digits and '_'; $${ is a literal ${"
            self._add(loc, f"'{odd}' is not a reference", fix)
        return False

    def _unset(self, text: str, loc: Loc) -> bool:
        """Note the variables that *text* needs and the environment lacks."""
        missing = variables.unset(text, self._env)
        for name in missing:
            self._add(loc, f"environment variable '{name}' is not set", f"export {name}=…", warning=not self._required)
        return bool(missing)

    def _environment(self, parts: JobFileSpec) -> None:
        """What the endpoints of the chosen jobs need from the environment; of a local one, its command alone."""
        chosen = {job.endpoint for name, job in parts.jobs.items() if not self._only or name in self._only}
        for name, endpoint in parts.endpoints.items():
            if name not in chosen:
                continue
            if isinstance(endpoint, LocalEndpoint):
                self._unset(endpoint.command or "", ("endpoints", name, "command"))
                continue
            told: set[str] = set()
            for key in ("id", "api_key", "base_url"):
                text = getattr(endpoint, key)
                if not told.intersection(variables.unset(text, self._env)):
                    self._unset(text, ("endpoints", name, key))
                told.update(variables.unset(text, self._env))
        for name, job in parts.jobs.items():
            if not self._only or name in self._only:
                for loc, text in _secrets(("jobs", name), job):
                    self._unset(text, loc)

    def _costs(self, parts: JobFileSpec) -> None:
        """A bound on money is worth nothing where it is not known what a second costs."""
        if "cost" not in parts.thresholds:
            return
        for name in dict.fromkeys(job.endpoint for job in parts.jobs.values()):
            endpoint = parts.endpoints.get(name)
            if endpoint is not None and endpoint.cost_per_second is None:
                self._add(("thresholds", "cost"), *limits.no_rate("thresholds", name), at_key=True)

    # Endpoints

    def _endpoint(self, name: str, endpoint: Endpoint) -> None:
        if isinstance(endpoint, LocalEndpoint):
            written = self._raw("endpoints", name)
            for finding in startup.problems(("endpoints", name), endpoint, written, self.folder, self._env):
                self._add(finding.loc, finding.message, finding.fix, at_key=finding.at_key)
        else:
            self._remote(("endpoints", name), endpoint)

    def _remote(self, loc: Loc, endpoint: RemoteEndpoint) -> None:
        if not variables.is_reference(endpoint.api_key):
            message = "a literal key can't be part of a job file: whoever reads the file could use it"
            self._add((*loc, "api_key"), message, "write ${RUNPOD_API_KEY}, and export RUNPOD_API_KEY=…")
        for key, problem in (("id", limits.id_problem), ("base_url", limits.base_url_problem)):
            text = getattr(endpoint, key)
            if self._well_formed(text, (*loc, key)) and not variables.unset(text, self._env):
                trouble = problem(variables.resolve(text, self._env))
                if trouble:
                    self._add((*loc, key), *trouble)

    # Jobs

    def _job(self, name: str, job: Job) -> Templates:
        loc: Loc = ("jobs", name)
        declared = self._raw("endpoints")
        if isinstance(declared, dict) and job.endpoint and job.endpoint not in declared:
            self._add((*loc, "endpoint"), f"unknown endpoint '{job.endpoint}'", suggest(job.endpoint, declared))
        for finding, warning in limits.problems(
            loc, job, self._spec.endpoints.get(job.endpoint) if self._spec else None
        ):
            self._add(finding.loc, finding.message, finding.fix, warning=warning)
        self._rows(loc, job)
        self._input(loc, job)
        for finding in artifact_paths.problems(loc, job, self._raw("jobs", name, "artifacts")):
            self._add(finding.loc, finding.message, finding.fix)
        self._passed_through(loc, job)
        known = Known.of(self._raw("vars"), self._raw("jobs", name, "rows"))
        return self._compiler.templates(loc, job, known)

    def _passed_through(self, loc: Loc, job: Job) -> None:
        """A webhook and an s3_config: what may be in them, no matter what their variables hold."""
        if job.s3_config is not None and not variables.is_reference(job.s3_config.access_secret):
            message = "a literal secret can't be part of a job file: whoever reads the file could use it"
            self._add((*loc, "s3_config", "access_secret"), message, "write ${S3_SECRET}, and export S3_SECRET=…")
        for at, text in _secrets(loc, job):
            if not self._well_formed(text, at) or at[-1] not in ("webhook", "endpoint_url"):
                continue
            known = not variables.unset(text, self._env)
            trouble = limits.url_problem(variables.resolve(text, self._env) if known else text)
            if trouble:
                message, fix = trouble
                self._add(at, _UNRESOLVED if variables.names(text) else message, fix)

    def _input(self, loc: Loc, job: Job) -> None:
        """RunPod drops an empty input on the way: the worker sees none, and the job fails after a retry."""
        raw = self._raw("jobs", str(loc[1]))
        if isinstance(raw, dict) and "input" not in raw:
            self._add(loc, f"missing key 'input' in job '{loc[1]}'", _EMPTY_FIX, at_key=True)
        elif not job.input:
            message = f"an empty input, {empty(job.input)}, never arrives: {EMPTY_INPUT}"
            self._add((*loc, "input"), message, _EMPTY_FIX)
        self._not_replaced((*loc, "input"), job.input)

    def _not_replaced(self, loc: Loc, value: JsonValue) -> None:
        """Warn of ``${VAR}`` in an input: requests are recorded, so nothing of the environment gets into them."""
        if isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                self._not_replaced((*loc, key), item)
        elif isinstance(value, str):
            for name in dict.fromkeys(variables.names(value)):
                message = f"'${{{name}}}' is not replaced in 'input': the handler gets it as it is written"
                fix = f"declare it under vars, as {name.lower()}: ${{{name}}}, and write {{{{ vars.{name.lower()} }}}}"
                if variables.sounds_secret(name):
                    fix = "a secret can't be part of an input, which is recorded: set it in the endpoint's environment"
                spot = self.document.spot(loc, rf"(?<!\$)\$\{{{name}\b")
                self.warnings.append(self.document.problem(Finding(loc, message, fix), warning=True, column=spot))

    def _rows(self, loc: Loc, job: Job) -> None:
        rows = job.rows
        if rows.file is not None and rows.inline is not None:
            self._add(
                (*loc, "rows", "inline"), "'file' and 'inline' can't stand together", "keep one of the two", at_key=True
            )
        if rows.file is not None:
            trouble = data_file_problem(self.folder, rows.file)
            if trouble:
                self._add((*loc, "rows", "file"), *trouble)
        if rows.file is None and rows.inline is None:
            for key in ("where", "shuffle", "limit"):
                if getattr(rows, key) is not None:
                    self._add(
                        (*loc, "rows", key), f"'{key}' needs rows: there is neither 'file' nor 'inline'", at_key=True
                    )
        for finding, warning in matrix.problems((*loc, "rows"), rows):
            self._add(finding.loc, finding.message, finding.fix, at_key=finding.at_key, warning=warning)


def _secrets(loc: Loc, job: Job) -> list[tuple[Loc, str]]:
    """Texts of the job at *loc* that may refer to variables, each with its place."""
    texts: list[tuple[Loc, str]] = [((*loc, "webhook"), job.webhook)] if job.webhook is not None else []
    if job.s3_config is not None:
        given = job.s3_config.model_dump(exclude_none=True)
        texts += [((*loc, "s3_config", key), text) for key, text in given.items()]
    return texts


EMPTY_INPUT = "RunPod drops it, and the job fails after a retry"
_UNRESOLVED = "this is no http or https URL once its variables are there"
_NO_SECRETS = "secrets belong to endpoints, as ${VAR}"
_EMPTY_FIX = "give the handler at least one key, such as input: {run: true}"


def empty(value: JsonValue) -> str:
    """An empty value as its author wrote it."""
    return {"dict": "{}", "list": "[]", "str": '""'}.get(type(value).__name__, found(value))


def _overridden(name: str, declared: JsonValue, text: str) -> JsonValue:
    """
    The value that ``--var name=text`` gives, of the type that the file declares.

    Raises:
        UsageError: *text* is not of that type.
    """
    if isinstance(declared, str):
        return text
    try:
        value = values.parse(text.encode())
    except ValueError:
        value = text
    same = declared is None or type(value) is type(declared) or (isinstance(declared, float) and type(value) is int)
    if not same:
        message = f"variable '{name}' is {_kind(declared)} in the file, found {found(text)}"
        raise UsageError(message, fix=f"write --var {name}={values.dump(declared).decode()}, or the like")
    return float(value) if isinstance(declared, float) else value


def _kind(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else found(value)
