"""What earlier batches tell of the time that a job's runs take, and so of their cost, before anything is sent."""

from dataclasses import dataclass
from pathlib import Path

from runner.batch import Folder, newest_first
from runner.cost import Basis
from runner.errors import UsageError
from runner.values import JsonObject, parse

MOST_LOOKED_AT = 100
"""So many batches are looked at, the newest."""


@dataclass(frozen=True, slots=True)
class Past:
    """
    How long runs of a job took in an earlier batch: percentiles of *runs* settled ones, RunPod's execution time.

    *run_usd* is what one that was sent cost on average, where outputs told it, and *basis* how far they did, as
    `cost.Basis` has it; None where none did.
    """

    batch: str
    runs: int
    p50_ms: float
    p95_ms: float
    run_usd: float | None = None
    basis: str | None = None

    def cost_usd(self, time_ms: float, runs: int, usd_per_s: float) -> float:
        """What *runs* of *time_ms* each cost, execution only."""
        return time_ms / 1000 * runs * usd_per_s


def past(root: Path, job: str, endpoint: JsonObject) -> Past | None:
    """
    What the newest batch in *root* tells that ran *job* at the same endpoint, None where there is none. *endpoint* is
    as the manifest has it.

    Another endpoint is another machine: what a handler took here says nothing of a GPU. So is one that `--local` named.
    """
    for folder in newest_first(root)[:MOST_LOOKED_AT]:
        told = _told(folder, job, endpoint)
        if told is not None:
            return told
    return None


def _told(folder: Folder, job: str, endpoint: JsonObject) -> Past | None:
    """What the batch in *folder* tells; nothing where it was killed before its end, is damaged, or is being removed."""
    try:
        found = parse(folder.health.read_bytes())["jobs"][job]
        times = found["execution_time_ms"]
        if times["p50"] is None or times["p95"] is None:
            return None
        manifest = folder.read_manifest()
        name = manifest["spec"]["jobs"][job]["endpoint"]
        is_same = _place(manifest["spec"]["endpoints"][name]) == _place(endpoint) and manifest["local_url"] is None
        runs = found["succeeded"] + found["failed"] + found["cancelled"]
        run_usd, basis = _run_usd(found, runs), found.get("cost_basis")
        past = Past(folder.id, runs, float(times["p50"]), float(times["p95"]), run_usd, basis if run_usd else None)
        return past if is_same else None
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return None


def _run_usd(found: JsonObject, runs: int) -> float | None:
    """What a run cost that was sent, by what outputs told. What was reused was not paid for."""
    sent = runs - found.get("reused", 0)
    has_told = found.get("cost_basis") in (Basis.EXACT, Basis.MIXED)
    return float(found["cost_usd"]) / sent if has_told and sent > 0 else None


def _place(endpoint: JsonObject) -> tuple[object, ...]:
    return tuple(endpoint.get(key) or None for key in ("id", "base_url", "handler", "command", "external"))
