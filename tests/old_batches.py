"""Batch folders for tests, as a runner leaves them behind, and commands that look at them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from happened import a_run, an_ending, carried, new_store, skipped

from runner.batch import Folder, point_latest
from runner.events import Event
from runner.states import Outcome, Verdict
from runner.values import MISSING, dump

BEGAN = 1_800_000_000.0
"""When the batches of tests were started: 2027-01-15T08:00:00Z."""

ID = "20270115T080000Z-7f3a"


def a_batch(
    outputs: Path,
    events: Sequence[Event] = (),
    *,
    name: str = "horses",
    id_: str = ID,
    planned: Mapping[str, int] | None = None,
    verdict: Verdict | None = Verdict.PASS,
    took_s: float | None = 65.0,
) -> Folder:
    """The batch *id_* of the job file *name*, to which *events* happened; `latest` points to it."""
    folder = Folder(outputs / name / id_)
    folder.path.mkdir(parents=True)
    plan = {"photos": 1} if planned is None else dict(planned)
    folder.manifest.write_bytes(dump({"batch": id_, "name": name, "plan": plan}))
    store = new_store(folder.path)
    store.ledger.note(started_at=BEGAN, plan=plan, verdict=verdict, ended_at=None if took_s is None else BEGAN + took_s)
    store.write(events)
    store.close()
    folder.log.touch()
    point_latest(folder)
    return folder


def mixed() -> list[Event]:
    """A run that succeeded, one that failed and one that was skipped, and one of another job."""
    horse = replace(a_run("aaaa1", given={"prompt": "a horse"}), row={"prompt": "a horse"}, matrix={"seed": 1})
    pferd = replace(a_run("aaaa2", index=1, given={"prompt": "ein Pferd"}), row={"prompt": "ein Pferd", "style": "ink"})
    trouble = {"type": "ValueError", "message": "no horse", "traceback": "Traceback:\n  here"}
    return [
        *carried(horse, an_ending(output={"score": 0.75}, delay_time_ms=19, execution_time_ms=539)),
        *carried(pferd, an_ending(Outcome.FAILED, output=MISSING, error=trouble)),
        skipped(a_run("bbbb3", index=2)),
        *carried(a_run("cccc4", "captions"), an_ending(output="short")),
    ]


MIXED = {"photos": 4, "captions": 1}
"""The plan that `mixed` belongs to: a fourth photo has not been started."""
