"""What becomes of a run's output: judged by the job's schema and expressions, then made into artifacts."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from runner.artifacts import ArtifactError, Artifacts, Wanted
from runner.check import ArtifactTemplate, Templates
from runner.events import Ending, FileClaim
from runner.render import RenderError, Scope
from runner.secret import Masker
from runner.states import RETRYABLE, Outcome
from runner.values import MISSING, JsonObject, JsonValue
from runner.work import Work

log = logging.getLogger(__name__)

TAKEN_OUT = ("base64", "data_uri", "text", "json")
"""Kinds whose value leaves the output for the file; a URL stays where it is."""

MOST_ITEMS = 10_000
"""So many files one artifact of a run may be: a list is a model's word."""

MOST_TOLD = 20
"""So many attempts of a job that tell no cost are logged: where one expression is wrong, all of them are."""

_ITEMS_AT_ONCE = 100
"""So many items are looked at before others get the loop."""


class Outputs:
    """
    The outputs of one job.

    *loopback* says whether artifacts may be fetched from this machine: the job runs on a local endpoint. *masker* masks
    what is said of an output, which may hold what the worker was sent; the output itself stays as it is.
    *decides_retries*: there is a ``retry_when``, and `wants_another` has to be asked.
    """

    def __init__(
        self,
        templates: Templates,
        vars_: JsonObject,
        artifacts: Artifacts,
        *,
        loopback: bool,
        masker: Masker | None = None,
    ) -> None:
        self._templates = templates
        self._vars = vars_
        self._artifacts = artifacts
        self._loopback = loopback
        self._masker = Masker() if masker is None else masker
        self.decides_retries = templates.retry_when is not None
        self._untold = 0  # attempts whose output told no cost, where it was asked for

    async def finish(self, work: Work, ending: Ending) -> Ending:
        """
        *ending* after the job's own word on it. Whatever the output says, this raises nothing because of it.

        Raises:
            RecordError: the batch folder can't be written.
        """
        if self._templates.cost is not None:
            ending = self._priced(self._templates.cost, work, ending)
        if ending.outcome is Outcome.COMPLETED and self._templates.fits is not None:
            misfit = self._templates.fits(ending.output)
            if misfit is not None:
                ending = _failed(ending, Outcome.CHECK_FAILED, f"output_schema: {misfit}")
        if ending.outcome in (Outcome.COMPLETED, Outcome.COMPLETED_WITHOUT_OUTPUT):
            ending = self._judged(work, ending)
        if ending.outcome is Outcome.COMPLETED and self._templates.artifacts:
            ending = await self._with_artifacts(work, ending)
        return ending if ending.error is None else replace(ending, error=self._masker.within(ending.error))

    def wants_another(self, work: Work, ending: Ending) -> tuple[Ending, bool | None]:
        """
        Whether ``retry_when`` wants another attempt after *ending*, a finished one; None where there is no such word.

        An expression that fails wants none, and the ending that comes back says why it failed.
        """
        wants = self._templates.retry_when
        if wants is None or ending.outcome not in RETRYABLE:
            return ending, None
        scope = self._scope(work, ending) | _facts(ending)
        scope |= {"outcome": str(ending.outcome), "error": ending.error, "attempts": work.attempts}
        try:
            return ending, bool(wants(scope))
        except RenderError as error:
            told = ending.error or {"type": None, "message": "", "traceback": None}
            message = f"{told['message']}; retry_when: {error.message}".removeprefix("; ")
            return replace(ending, error=told | {"message": self._masker(message)}), False

    def _priced(self, cost: Callable[[Scope], float], work: Work, ending: Ending) -> Ending:
        """*ending* with what it cost, however it ended; as it was where it does not tell, or nothing that can be."""
        if ending.output is MISSING and ending.execution_time_ms is None:
            return ending
        try:
            return replace(ending, cost_usd=cost(self._scope(work, ending) | _facts(ending)))
        except RenderError as error:
            self._untold += ending.output is not MISSING
            if ending.output is not MISSING and self._untold <= MOST_TOLD:
                more = "; no more of these are logged" if self._untold == MOST_TOLD else ""
                extra = {"job": work.run.job, "run": work.run.key, "attempt": work.attempts, "job_id": work.job_id}
                log.warning("cost: %s%s", error.message, more, extra=extra)
            return ending

    def _judged(self, work: Work, ending: Ending) -> Ending:
        if self._templates.success_when is None:
            return ending
        scope = self._scope(work, ending) | _facts(ending)
        try:
            holds, why = self._templates.success_when(scope), "success_when is false"
        except RenderError as error:
            holds, why = False, f"success_when: {error.message}"
        if holds:
            return replace(ending, outcome=Outcome.COMPLETED, error=None)
        if ending.outcome is Outcome.COMPLETED_WITHOUT_OUTPUT:
            return ending
        return _failed(ending, Outcome.CHECK_FAILED, why)

    async def _with_artifacts(self, work: Work, ending: Ending) -> Ending:
        scope = self._scope(work, ending) | {"run": {"index": work.run.index, "key": work.run.key}}
        try:
            wanted: list[Wanted] = []
            for number, one in enumerate(self._templates.artifacts):
                wanted += await _all_wanted(f"artifacts.{number}", one, scope)
            made = await self._artifacts.make(work.run.key, work.attempts, wanted, loopback=self._loopback)
        except RenderError as error:
            return _failed(ending, Outcome.ARTIFACT_FAILED, f"{'.'.join(map(str, error.loc[2:]))}: {error.message}")
        except ArtifactError as error:
            return _failed(ending, Outcome.ARTIFACT_FAILED, str(error))
        output = without(ending.output, wanted, made)
        return replace(ending, output=output, artifacts=tuple(one.path for one in made))

    def _scope(self, work: Work, ending: Ending) -> Scope:
        run = work.run
        scope: Scope = {"row": run.row, "matrix": run.matrix, "repeat": run.repeat, "vars": self._vars}
        return scope if ending.output is MISSING else scope | {"output": ending.output}


def _facts(ending: Ending) -> Scope:
    """What RunPod says of an attempt beside its output."""
    return {
        "status": ending.status,
        "execution_time_ms": ending.execution_time_ms,
        "delay_time_ms": ending.delay_time_ms,
    }


async def _all_wanted(name: str, one: ArtifactTemplate, scope: Scope) -> list[Wanted]:
    """What the artifact *one* makes of an output: a file, or one for each item."""
    if one.items is None:
        return [_wanted(one, scope)]
    items = one.items(scope)
    if len(items) > MOST_ITEMS:
        raise ArtifactError(f"{name}.for: a list of {len(items)} items, and {MOST_ITEMS} is the most")
    wanted = []
    for index, item in enumerate(items):
        if index % _ITEMS_AT_ONCE == _ITEMS_AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            wanted.append(_wanted(one, scope | {"item": item, "item_index": index}, of=f"{name}: item {index}: "))
        except RenderError as error:
            raise RenderError(error.loc, f"item {index}: {error.message}") from None
    return wanted


def _wanted(one: ArtifactTemplate, scope: Scope, *, of: str = "") -> Wanted:
    def path(ext: str) -> str:
        return one.path(scope | {"ext": ext})

    if one.by_type:
        return Wanted("", one.kind, one.value(scope), path, one.most_bytes, of)
    # A path that can't be is known before anything is decoded, or downloaded.
    return Wanted(one.path(scope), one.kind, one.value(scope), None, one.most_bytes, of)


def without(output: JsonValue, wanted: Sequence[Wanted], made: Sequence[FileClaim]) -> JsonValue:
    """*output* as results have it: what an artifact took out of it, just as it stood there, is a reference."""
    references = {
        id(one.value): {"file": claim.path, "sha256": claim.sha256}
        for one, claim in zip(wanted, made, strict=True)
        # Python shares texts of one character: equal ones elsewhere would be taken for what the artifact took.
        if one.kind in TAKEN_OUT and isinstance(one.value, str | dict | list) and len(one.value) > 1
    }

    def shown(value: JsonValue) -> JsonValue:
        if isinstance(value, str | dict | list) and id(value) in references:
            return references[id(value)]
        if isinstance(value, dict):
            return {key: shown(item) for key, item in value.items()}
        return [shown(item) for item in value] if isinstance(value, list) else value

    return shown(output)


def _failed(ending: Ending, named: Outcome, message: str) -> Ending:
    return replace(ending, outcome=named, error={"type": None, "message": message, "traceback": None})
