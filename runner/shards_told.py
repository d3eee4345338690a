"""What all shards of a batch came to together: the health report of the whole, and its verdict."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from shlex import quote

from runner import locations, report
from runner.batch import Folder
from runner.gates import WHEN_FALSE
from runner.plain import plain
from runner.report import Told
from runner.shards import SHARDS
from runner.shards_folder import Common, Standing
from runner.shards_ledgers import Ledgers, stopped
from runner.states import State, Verdict
from runner.summary import summary
from runner.tally import Tally, verdict
from runner.values import JsonObject


@dataclass(frozen=True, slots=True)
class Whole:
    """The shards of a batch read together: their *ledger*, and *health*, the report of the whole."""

    folder: Folder
    ledger: Ledgers
    health: JsonObject


@contextmanager
def opened(common: Common) -> Iterator[Whole]:
    """The shards of *common* that are there; what is known of the others is how many runs they have."""
    there = common.there
    first = there[0].folder
    with ExitStack() as stack:
        paths = {f"{SHARDS}/{one.folder.path.name}": one.folder.ledger for one in there}
        ledger = Ledgers.of(stack, paths, {})
        ended = [one.noted("ended_at") for one in ledger.parts]
        is_whole = len(there) == len(common.parts)
        is_over = is_whole and all(one.standing is Standing.ENDED for one in there) and None not in ended
        noted = {
            "plan": _plan(common, ledger, is_whole=is_whole),
            "started_at": min(one.noted("started_at") for one in ledger.parts),
            "ended_at": max(ended) if is_over else None,
            "stopped": stopped(ledger.parts),
        }
        ledger = Ledgers(ledger.parts, ledger.folders, noted)
        running = any(one.standing is Standing.RUNNING for one in there)
        facts = report.told(ledger, first, verdict="running" if running else "unfinished")
        facts = replace(facts, batch=common.path.name)
        with ledger.snapshot():
            came_to = _verdict(ledger, facts) if _has_ended(common, ledger) else facts.verdict
        yield Whole(Folder(common.path), ledger, report.fold(ledger, replace(facts, verdict=came_to)))


def _has_ended(common: Common, ledger: Ledgers) -> bool:
    """Whether no shard is missing, and each has said what it came to."""
    return len(ledger.parts) == len(common.parts) and all(one.noted("verdict") is not None for one in ledger.parts)


def _plan(common: Common, ledger: Ledgers, *, is_whole: bool) -> JsonObject:
    """The runs of all shards, by job."""
    planned: Counter[str] = Counter()
    for one in ledger.parts:
        planned.update(one.noted("plan"))
    if not is_whole:  # those that are missing have what the others had not when they were started
        manifests = [one.manifest for one in common.there if one.manifest is not None]
        for job, runs in manifests[0]["shard"]["plan"].items():
            planned[job] += runs - sum(told["plan"].get(job, 0) for told in manifests)
    return dict(planned)


def _verdict(ledger: Ledgers, told: Told) -> Verdict:
    """What the shards came to, judged as one batch: what any of them met, and the thresholds over all."""
    met = {one.noted("verdict") for one in ledger.parts}
    tally = Tally(told.planned)
    tally.restore(ledger.counts())
    return verdict(
        tally,
        interrupted=Verdict.INTERRUPTED in met,
        refused=Verdict.REFUSED in met,
        stopped=bool(told.stopped),
        thresholds_hold=report.thresholds_hold(ledger, told),
        unwanted=ledger.skipped_because(WHEN_FALSE) if tally.total(State.SKIPPED) else 0,
    )


def as_json(common: Common, health: JsonObject) -> JsonObject:
    """*health*, the report of the whole, with where each shard stands and the command for those that are left."""
    return health | {
        "shards": [
            {
                "shard": str(one.shard),
                "folder": locations.shown(one.folder.path),
                "standing": one.standing,
                "command": common.start(one) if one in common.left else None,
            }
            for one in common.parts
        ]
    }


def said(common: Common) -> list[str]:
    """How many shards are where, and the command for each that is to be started or gone on with, for people."""
    counts = {word: sum(one.standing is word for one in common.parts) for word in Standing}
    if counts[Standing.ENDED] == len(common.parts):
        return [f"  all {len(common.parts)} shards have ended"]
    standing = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    lines = [f"  {len(common.parts)} shards: {standing}"]
    lines += [f"  shard {one.shard} is {one.standing}: {plain(common.start(one))}" for one in common.left]
    if common.left:
        lines.append(f"  or all of these here, one after another: runner resume {quote(locations.shown(common.path))}")
    return lines


def as_text(common: Common, health: JsonObject) -> str:
    """*health*, the report of the whole, in a few lines, and where the shards stand, for people."""
    return "\n".join([summary(health, locations.shown(common.path)), *said(common)])
