"""
Take results from earlier batches of the same job file, so that what is known is not paid for again.

A result is taken whole: its line is written anew and its artifacts are copied, so that no batch needs another one.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from runner.artifacts import FOLDER, ArtifactError, Artifacts, Wanted
from runner.batch import Folder
from runner.check import JobFile, Templates
from runner.clock import Clock
from runner.earlier import Earlier, Found, fields
from runner.errors import RunnerError
from runner.events import Destination, Ending, Settled
from runner.ledger import Ledger
from runner.originals import Original
from runner.render import RenderError, Scope
from runner.results import LONG_BYTES, line
from runner.runs import Run
from runner.shapes import SHAPES, is_judged, noted, shape, shaping_keys
from runner.states import State
from runner.values import MISSING, JsonObject, JsonValue, canonical

log = logging.getLogger(__name__)


def begin(
    folder: Folder,
    ledger: Ledger,
    job_file: JobFile,
    destinations: Mapping[str, Destination],
    *,
    is_resumed: bool,
    is_fresh: bool,
) -> tuple[Earlier, JsonObject]:
    """
    The batches whose results the one in *folder* may take; and what its *ledger* is to note as `SHAPES`.

    Args:
        destinations: Where each job of the batch leads.
        is_fresh: Whether nothing is to be taken.
    """
    shapes = {name: shape(job_file, name, to) for name, to in destinations.items()}
    wanted = {
        name: one
        for name, one in shapes.items()
        if one is not None and job_file.jobs[name].reuse == "succeeded" and not is_fresh
    }
    return Earlier.open(folder, wanted), noted(ledger.noted(SHAPES), shapes, is_resumed=is_resumed)


class Reuse:
    """Takes the results of one job from *earlier* batches, by way of *artifacts*, which are of this one."""

    def __init__(self, earlier: Earlier, job_file: JobFile, job: str, artifacts: Artifacts, clock: Clock) -> None:
        self._earlier = earlier
        self._job = job
        self._templates = job_file.templates[job]
        self._vars = job_file.vars
        self._is_judged = is_judged(shaping_keys(job_file, job))
        self._artifacts = artifacts
        self._clock = clock

    async def take(self, run: Run) -> Settled | None:
        """
        The end of *run*, with the newest result that an earlier batch has of it; None when none has one.

        Raises:
            RecordError: the batch folder can't be written.
        """
        for before in self._earlier.holding(self._job):
            try:
                found = before.find(run)
            except (RunnerError, OSError) as error:
                self._earlier.leave(before, error)
                continue
            if found is not None and self._fits(run, found) and (ending := await self._ending(run, found)) is not None:
                return self._settled(run, ending, found)
        return None

    def _fits(self, run: Run, found: Found) -> bool:
        """Whether it would be judged the same: expressions may read more than what is in the key."""
        if not self._is_judged:
            return True
        before = found.settled.run
        return canonical([run.row, run.matrix, run.repeat]) == canonical([before.row, before.matrix, before.repeat])

    async def _ending(self, run: Run, found: Found) -> Ending | None:
        """How it ended there, its files copied; None where one of them is gone, has changed, or would get no name."""
        ending = found.settled.ending
        assert ending is not None
        if not ending.artifacts:
            return ending
        files = {claim.path: claim for claim in found.files}
        names = _names(self._templates, self._vars, found.settled.run, run, ending.artifacts)
        if names is None or not files.keys() >= set(ending.artifacts):
            return None
        wanted = [
            Wanted(name.removeprefix(f"{FOLDER}/"), "copy", Original(found.batch.path / path, files[path].sha256))
            for path, name in zip(ending.artifacts, names, strict=True)
        ]
        try:
            await self._artifacts.make(run.key, 0, wanted, loopback=False)
        except (ArtifactError, RenderError) as error:
            log.warning("not reused: %s", error, extra=fields(run, found.batch))
            return None
        renamed = {
            (path, files[path].sha256): name for path, name in zip(ending.artifacts, names, strict=True) if path != name
        }
        output = _renamed(ending.output, renamed) if renamed else ending.output
        return replace(ending, output=output, artifacts=tuple(names))

    def _settled(self, run: Run, ending: Ending, found: Found) -> Settled:
        now, made_by = self._clock.now(), found.settled.reused_from or found.batch.id
        text = line(
            run,
            ending,
            state=State.SUCCEEDED,
            attempts=0,
            job_id=None,
            submitted_at=None,
            settled_at=now,
            reused_from=made_by,
        )
        if len(text) > LONG_BYTES:  # as for any other run: the line has it
            ending = replace(ending, output=MISSING)
        return Settled(run, 0, State.SUCCEEDED, ending, text, now, made_by)


def _names(
    templates: Templates, vars_: JsonObject, before: Run, now: Run, paths: Sequence[str]
) -> Sequence[str] | None:
    """
    What the artifacts at *paths* of the run *before* are called as those of the run *now*; None when nobody can tell.

    All that a path is made of is the same, but perhaps the index.
    """
    if before.index == now.index:
        return paths

    def rendered(run: Run) -> list[str]:
        scope: Scope = {"row": run.row, "matrix": run.matrix, "repeat": run.repeat, "vars": vars_}
        scope |= {"run": {"index": run.index, "key": run.key}}
        return [f"{FOLDER}/{one.path(scope)}" for one in templates.artifacts]

    with suppress(RenderError):  # a path that is made of more than that
        if rendered(before) == list(paths):
            return rendered(now)
    return None


def _renamed(output: JsonValue, names: Mapping[tuple[str, str], str]) -> JsonValue:
    """*output* with references to files by their new *names*, which are by path and digest."""
    if isinstance(output, dict):
        if output.keys() == {"file", "sha256"}:
            known = names.get((output["file"], output["sha256"])) if _is_named(output) else None
            return output if known is None else output | {"file": known}
        return {key: _renamed(item, names) for key, item in output.items()}
    return [_renamed(item, names) for item in output] if isinstance(output, list) else output


def _is_named(reference: JsonObject) -> bool:
    return isinstance(reference["file"], str) and isinstance(reference["sha256"], str)
