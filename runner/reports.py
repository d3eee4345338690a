"""Write what other programs read of a batch's end: JUnit XML for CI, a textfile for Prometheus."""

from collections.abc import Callable, Sequence
from pathlib import Path

from runner import junit, prometheus
from runner.batch import Folder, newest_first
from runner.durable import write_whole
from runner.ledger import Ledger
from runner.states import Verdict
from runner.values import JsonObject, parse

MOST_LOOKED_AT = 1000
"""The last success is looked for among so many batches, the newest."""


def render(kind: str, ledger: Ledger, folder: Folder, health: JsonObject) -> bytes:
    """The file of *kind*, one of `NAMES`, for the batch in *folder*."""
    return _RENDER[kind](ledger, folder, health)


def write(ledger: Ledger, folder: Folder, health: JsonObject, kinds: Sequence[str]) -> None:
    """
    Put the file of each of *kinds* into *folder*, whole or not at all.

    Raises:
        RecordError: one can't be written.
    """
    for kind in dict.fromkeys(kinds):
        write_whole(folder.path / NAMES[kind], render(kind, ledger, folder, health))


def last_success_at(folder: Folder, health: JsonObject) -> float | None:
    """When the newest batch of this job file ended that passed: that in *folder*, or an earlier one; None for none."""
    if health["verdict"] == Verdict.PASS:
        return prometheus.ended_at(health)
    for other in newest_first(folder.path.parent)[:MOST_LOOKED_AT]:
        if other.id < folder.id and (found := _health(other.health)).get("verdict") == Verdict.PASS:
            return prometheus.ended_at(found)
    return None


def _health(path: Path) -> JsonObject:
    try:
        found: JsonObject = parse(path.read_bytes())
    except (OSError, ValueError):  # it was killed before its end, or is being removed
        return {}
    return found


def _junit(ledger: Ledger, _folder: Folder, health: JsonObject) -> bytes:
    return junit.document(ledger, health)


def _prometheus(_ledger: Ledger, folder: Folder, health: JsonObject) -> bytes:
    return prometheus.document(health, last_success_at=last_success_at(folder, health))


NAMES = {"junit": "junit.xml", "prometheus": f"runner{prometheus.SUFFIX}"}
"""The kinds of files, and how each is named in a batch's folder."""

_RENDER: dict[str, Callable[[Ledger, Folder, JsonObject], bytes]] = {"junit": _junit, "prometheus": _prometheus}
