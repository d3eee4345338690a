"""What becomes of a completed run's output: judged by ``success_when``, then made into artifacts."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from runner.artifacts import ArtifactError, Artifacts, Wanted
from runner.check import Templates
from runner.events import Ending, FileClaim
from runner.render import RenderError, Scope
from runner.secret import Masker
from runner.states import Outcome
from runner.values import MISSING, JsonObject, JsonValue
from runner.work import Work

log = logging.getLogger(__name__)

TAKEN_OUT = ("base64", "data_uri", "text", "json")
"""Kinds whose value leaves the output for the file; a URL stays where it is."""


class Outputs:
    """
    The outputs of one job.

    *loopback* says whether artifacts may be fetched from this machine: the job runs on a local endpoint. *masker* masks
    what is said of an output, which may hold what the worker was sent; the output itself stays as it is.
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

    async def finish(self, work: Work, ending: Ending) -> Ending:
        """
        *ending* after the job's own word on it. Whatever the output says, this raises nothing because of it.

        Raises:
            RecordError: the batch folder can't be written.
        """
        if ending.outcome in (Outcome.COMPLETED, Outcome.COMPLETED_WITHOUT_OUTPUT):
            ending = self._judged(work, ending)
        if ending.outcome is Outcome.COMPLETED and self._templates.artifacts:
            ending = await self._with_artifacts(work, ending)
        return ending if ending.error is None else replace(ending, error=self._masker.within(ending.error))

    def _judged(self, work: Work, ending: Ending) -> Ending:
        if self._templates.success_when is None:
            return ending
        scope = self._scope(work, ending) | {
            "status": ending.status,
            "execution_time_ms": ending.execution_time_ms,
            "delay_time_ms": ending.delay_time_ms,
        }
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
            wanted = [Wanted(one.path(scope), one.kind, one.value(scope)) for one in self._templates.artifacts]
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
