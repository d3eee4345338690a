"""
Open a job file: load it, then check what no model can see by itself, every problem with its place.

Cross-references, templates, expressions, RunPod's bounds, files on disk, environment variables.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner import (
    artifact_paths,
    elsewhere,
    extras,
    limits,
    matrix,
    needs,
    output_schema,
    startup,
    values,
    variables,
    zones,
)
from runner.compiler import ArtifactTemplate as ArtifactTemplate
from runner.compiler import Compiler
from runner.compiler import Templates as Templates
from runner.errors import JobFileError, Problem, UsageError, told_once
from runner.inputs import sources
from runner.inputs.find import STDIN
from runner.known import ANY, Known
from runner.load import Document, Loaded, load
from runner.output_schema import SchemaProblem
from runner.records import record
from runner.row_slice import ALL, RowSlice
from runner.shards import WHOLE, Shard
from runner.spec import Endpoint, Health, Job, JobFileSpec, LocalEndpoint, Outputs, RemoteEndpoint, found
from runner.thresholds import Threshold
from runner.values import JsonObject, JsonValue
from runner.wording import Finding, Loc, suggest


@record(frozen=True)
class JobFile:
    """
    A checked job file.

    *vars* are resolved, overrides applied; all is as *profile* has it, None being none. *endpoints* keep their
    references: `runner.variables.resolve` gives the values when they are sent. *sha256* is of the file's bytes.
    *part* is the slice of each job's own rows that is meant, *shard* the part of all runs.
    """

    path: Path
    folder: Path
    sha256: str
    name: str
    description: str
    vars: JsonObject
    overrides: Mapping[str, str]
    profile: str | None
    endpoints: dict[str, Endpoint]
    jobs: dict[str, Job]
    outputs: Outputs
    health: Health
    thresholds: Mapping[str, tuple[Threshold, ...]]
    spec: JobFileSpec
    warnings: tuple[Problem, ...]
    templates: Mapping[str, Templates] = field(repr=False)
    document: Document = field(repr=False)
    part: RowSlice = ALL
    shard: Shard = WHOLE

    def problem(self, loc: Loc, message: str, fix: str | None = None, *, warning: bool = False) -> Problem:
        """A problem at the place that *loc* names, such as ``("jobs", "photos", "rows", "file")``."""
        return self.document.problem(Finding(loc, message, fix), warning=warning)

    def chosen(self, only: Sequence[str] = ()) -> list[str]:
        """The jobs to run, in file order.

        Raises:
            UsageError: *only* names a job that the file has not, or leaves out one that another needs.
        """
        for name in only:
            if name not in self.jobs:
                raise UsageError(f"unknown job '{name}' in {self.document.file}", fix=suggest(name, self.jobs))
        chosen = [name for name in self.jobs if not only or name in only]
        if (missing := needs.missing(self.jobs, chosen)) is not None:
            # Taken along silently it might be paid for by surprise.
            name, one = missing
            message = f"job '{name}' needs job '{one}', which is not chosen"
            words = [f"--job {name}" for name in needs.with_needs(self.jobs, chosen)]
            raise UsageError(message, fix=f"choose {'both' if len(words) == 2 else 'all'}: {' '.join(words)}")
        return chosen

    def reads_stdin(self, only: Sequence[str] = ()) -> bool:
        """Whether rows of a job that is to run come from stdin."""
        return any(self.jobs[name].rows.file == STDIN for name in self.chosen(only))


def open_job_file(
    path: Path,
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    only: Sequence[str] = (),
    profile: str | None = None,
    env: Mapping[str, str] | None = None,
    env_required: bool = False,
) -> JobFile:
    """
    Load and check the job file at *path*.

    Of profiles that are not chosen only the form is looked at: what they need may not be there. `runner.variants` looks
    at all of them.

    Args:
        overrides: Values for `vars`, by name, as ``--var`` gives them. They take the type the file has.
        only: Jobs that will run; the environment is looked at for their endpoints only. Empty: all of them.
        profile: The profile of the file to use; None: the file as it is without any.
        env: The environment; None is this process's.
        env_required: Whether an unset variable is an error instead of a warning.

    Raises:
        JobFileError: the file is invalid; every problem is in it.
        UsageError: *overrides*, *only* or *profile* name what the file has not.
    """
    loaded = load(path, profile=profile)
    return check(loaded, overrides=overrides, only=only, env=env, env_required=env_required)


def check(
    loaded: Loaded,
    *,
    overrides: Mapping[str, str] = MappingProxyType({}),
    only: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    env_required: bool | None = False,
) -> JobFile:
    """Check what was *loaded*, as `open_job_file` does. With None for *env_required* no unset variable is told."""
    return _Check(loaded, os.environ if env is None else env, overrides, only, env_required).job_file()


class _Check:
    """The checks of one file. Each notes problems and goes on."""

    def __init__(
        self,
        loaded: Loaded,
        env: Mapping[str, str],
        overrides: Mapping[str, str],
        only: Sequence[str],
        required: bool | None,
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
        parts = self._spec = self._with_schemas(self._spec)
        templates: dict[str, Templates] = {}
        vars_: JsonObject = {}
        if parts is not None:
            vars_ = self._vars(parts.vars)
            for name, endpoint in parts.endpoints.items():
                self._endpoint(name, endpoint)
            for name, job in parts.jobs.items():
                templates[name] = self._job(name, job)
            self._layers()
            self._costs(parts)
            self._forms(parts.outputs)
            for finding in zones.problems(parts.schedule, self._raw("schedule")) if parts.schedule else ():
                self._add(finding.loc, finding.message, finding.fix, at_key=finding.at_key)
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
            profile=self.document.layers.profile,
            endpoints=parts.endpoints,
            jobs=parts.jobs,
            outputs=parts.outputs,
            health=parts.health,
            thresholds=parts.thresholds,
            spec=parts,
            warnings=tuple(sorted(told_once(self.warnings), key=lambda p: (p.line, p.column))),
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

    def _raw(self, *loc: int | str) -> Any:
        """What the file comes to at *loc*, or has in a layer, valid or not; None when there is nothing."""
        is_layer = loc[:1] in (("defaults",), ("profiles",))
        value: Any = self.document.value if is_layer else self.document.layers.value
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
        """Note the variables that *text* needs and the environment lacks, where that is asked for."""
        missing = variables.unset(text, self._env)
        at = self.document.layers.origin(loc)
        for name in missing if self._required is not None else ():
            self._add(at, f"environment variable '{name}' is not set", f"export {name}=…", warning=not self._required)
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
        for name, job in parts.jobs.items():
            endpoint = parts.endpoints.get(job.endpoint)
            is_known = endpoint is None or endpoint.cost_per_second is not None or job.cost is not None
            if "cost" in job.thresholds and not is_known:
                loc = ("jobs", name, "thresholds", "cost")
                self._add(loc, *limits.no_rate("thresholds", job.endpoint), at_key=True)
        if "cost" not in parts.thresholds:
            return
        for name in dict.fromkeys(job.endpoint for job in parts.jobs.values() if job.cost is None):
            endpoint = parts.endpoints.get(name)
            if endpoint is not None and endpoint.cost_per_second is None:
                self._add(("thresholds", "cost"), *limits.no_rate("thresholds", name), at_key=True)

    def _forms(self, outputs: Outputs) -> None:
        for number, form in enumerate(outputs.results):
            if form == "parquet" and not extras.is_there("pyarrow"):
                message = "parquet needs pyarrow, which is not installed"
                self._add(("outputs", "results", number), message, extras.PARQUET)
        for finding in elsewhere.problems(outputs):
            self._add(finding.loc, finding.message, finding.fix)

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

    # Layers

    def _layers(self) -> None:
        """What takes effect nowhere, and a profile's vars, which the file must declare."""
        declared = self._mapping("vars")
        for profile in self._mapping("profiles"):
            for name in self._mapping("profiles", profile, "vars"):
                if name not in declared:
                    fix = suggest(name, declared) or "the file has no vars"
                    self._add(("profiles", profile, "vars", name), f"the file has no var '{name}'", fix, at_key=True)
        # Whoever reads the file could use a key in it, and editors mark what is wrong there.
        for at in self.document.layers.unused:
            if (part := self._raw(*at)) is None:
                continue
            try:
                job = Job.read({"endpoint": "", "input": "x", at[-1]: part})
            except ValueError:
                continue  # told already
            self._by_itself(at[:-1], job, Known(ANY, ANY, tuple(declared)))

    def _mapping(self, *loc: str) -> JsonObject:
        """The mapping at *loc*, as `_raw` finds it; an empty one where there is none."""
        part = self._raw(*loc)
        return part if isinstance(part, dict) else {}

    # Jobs

    def _job(self, name: str, job: Job) -> Templates:
        loc: Loc = ("jobs", name)
        declared = self._raw("endpoints")
        if isinstance(declared, dict) and job.endpoint and job.endpoint not in declared:
            self._add((*loc, "endpoint"), f"unknown endpoint '{job.endpoint}'", self._elsewhere(job.endpoint, declared))
        for finding, warning in limits.problems(
            loc, job, self._spec.endpoints.get(job.endpoint) if self._spec else None
        ):
            self._add(finding.loc, finding.message, finding.fix, warning=warning)
        self._needs(name, job)
        return self._by_itself(loc, job, Known.of(self._raw("vars"), self._raw("jobs", name, "rows")))

    def _elsewhere(self, endpoint: str, declared: JsonObject) -> str | None:
        """What to do about an *endpoint* that is not among the *declared*."""
        for profile in self._mapping("profiles"):
            if endpoint in self._mapping("profiles", profile, "endpoints"):
                return f"profile '{profile}' has it: declare it under 'endpoints' too"
        return suggest(endpoint, declared)

    def _by_itself(self, loc: Loc, job: Job, known: Known) -> Templates:
        """What can be said of the job at *loc* without its endpoint and other jobs."""
        self._rows(loc, job)
        for finding in needs.of_rows(loc, job):
            self._add(finding.loc, finding.message, finding.fix, at_key=finding.at_key)
        self._input(loc, job)
        for finding in artifact_paths.problems(loc, job, self._raw(*loc, "artifacts")):
            self._add(finding.loc, finding.message, finding.fix)
        self._passed_through(loc, job)
        return self._compiler.templates(loc, job, known)

    def _with_schemas(self, parts: JobFileSpec | None) -> JobFileSpec | None:
        """*parts* with each job's schema as the file has it that is named there: what a batch ran is recorded whole."""
        if parts is None:
            return None
        read: dict[str, Job] = {}
        for name, job in parts.jobs.items():
            if isinstance(job.output_schema, str):
                schema = None
                try:
                    schema = output_schema.read(job.output_schema, self.folder)
                except SchemaProblem as problem:
                    self._add(("jobs", name, "output_schema"), problem.message, problem.fix)
                read[name] = job.model_copy(update={"output_schema": schema})
        return parts.model_copy(update={"jobs": parts.jobs | read}) if read else parts

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

    def _needs(self, name: str, job: Job) -> None:
        jobs = self._spec.jobs if self._spec else {}
        declared = self._raw("jobs")
        for finding in needs.problems(name, job, jobs, declared if isinstance(declared, dict) else jobs):
            self._add(finding.loc, finding.message, finding.fix, at_key=finding.at_key)

    def _input(self, loc: Loc, job: Job) -> None:
        """RunPod drops an empty input on the way: the worker sees none, and the job fails after a retry."""
        raw = self._raw(*loc)
        if isinstance(raw, dict) and "input" not in raw and loc[0] == "jobs":
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
        for finding in sources.problems((*loc, "rows"), job.rows, self.folder):
            self._add(finding.loc, finding.message, finding.fix, at_key=finding.at_key)
        for finding, warning in matrix.problems((*loc, "rows"), job.rows):
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
