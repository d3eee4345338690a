"""A report is made of any batch: its end must never fail because of what a server said, or when."""

import random
from pathlib import Path

import pytest
from happened import a_run, a_settled, accepted, an_ending, ended, error, intended, new_store, skipped, unsynced
from made_batches import START, Shape, made

from runner import report
from runner.batch import Folder
from runner.events import Event, Sampled
from runner.ledger import Ledger
from runner.page.document import render
from runner.report import Told
from runner.states import Outcome
from runner.store import Store
from runner.values import JsonObject

ODD_MS = (None, -5, 0, 1, 2, 999, 60_000, 2**31, 2**62)
ODD_AT = (START - 1e6, START - 1.0, START, START, START + 0.001, START + 1.0, START + 500.0, START + 1e7)
WORDS = ("", " \n", "\0", "<b>", "\u202e", "x" * 3000, "é" * 999, "0" * 40, "%s {0} {{x}}", "</style>")
FACTS = Told(
    batch="20261123T022312Z-7f3a",
    name="odd",
    planned={"photos": 60, "captions": 20, "empty": 0},
    endpoint_of={"photos": "sdxl", "captions": "llm", "empty": "sdxl"},
    cost_per_second={"sdxl": 0.001, "llm": None},
    started_at=START,
    ended_at=None,
    verdict="unfinished",
)


def happened(chance: random.Random, job: str, index: int) -> list[Event]:
    """The life of a run, as odd as it may be."""
    matrix = chance.choice([{"size": chance.choice(WORDS[:6]), "n": index}, {"n": None}, {"n": [1, {"a": 2}]}])
    run = a_run(f"{job}-{index}", job, index=index)
    object.__setattr__(run, "matrix", matrix)
    if chance.random() < 0.1:
        return [skipped(run, at=chance.choice(ODD_AT))]
    found: list[Event] = []
    for attempt in range(1, chance.randint(1, 3) + 1):
        at = chance.choice(ODD_AT)
        told: JsonObject = {
            "delay_time_ms": chance.choice(ODD_MS),
            "execution_time_ms": chance.choice(ODD_MS),
            "worker_id": chance.choice([None, *WORDS]),
        }
        outcome = chance.choice(list(Outcome))
        if outcome is not Outcome.COMPLETED:
            message = chance.choice(WORDS) + str(chance.random())
            told["error"] = error(message) | {"type": chance.choice(WORDS), "traceback": chance.choice([None, *WORDS])}
        found.append(intended(run, attempt, at=at))
        if chance.random() < 0.2:
            return found
        found.append(accepted(run, attempt, at=chance.choice(ODD_AT)))
        if chance.random() < 0.2:
            return found
        ending = an_ending(outcome, **told)
        if chance.random() < 0.5:
            return [*found, a_settled(run, attempt, ending, at=chance.choice(ODD_AT))]
        found.append(ended(run, attempt, ending, at=chance.choice(ODD_AT)))
    return found


def odd(folder: Path, chance: random.Random) -> Store:
    """The store of a batch whose clocks, texts and numbers make no sense."""
    store = new_store(folder)
    unsynced(store.ledger)
    for job, count in (("photos", 60), ("captions", 20)):
        for index in range(count):
            store.write(happened(chance, job, index))
    for at in ODD_AT:
        counts = {word: chance.choice([0, 1, 10**9]) for word in ("idle", "ready", "running", "odd", "unhealthy")}
        store.write([Sampled("sdxl", at, {"inQueue": 1}, counts), Sampled("llm", at, {}, {}, problem="\x1b[31m<i>")])
    return store


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_that_makes_no_sense_has_a_report(tmp_path: Path, seed: int) -> None:
    """Clocks that step, times beyond the age of the world, negative ones, no text at all."""
    chance = random.Random(seed)
    folder = Folder(tmp_path / FACTS.batch)
    folder.path.mkdir()
    store = odd(folder.path, chance)
    folder.manifest.write_bytes((made(tmp_path / "other", Shape(runs=0)).manifest).read_bytes())
    for verdict in ("unfinished", "running", "pass"):
        facts = Told(**{name: getattr(FACTS, name) for name in Told.__slots__} | {"verdict": verdict})
        health = report.fold(store.ledger, facts)
        page = render(store.ledger, folder, health, now=chance.choice(ODD_AT), live=verdict == "running")
        assert page.endswith(b"</html>\n")
        assert len(page) < 300_000
    store.close()


def test_a_batch_that_has_only_just_begun_has_a_report(tmp_path: Path) -> None:
    """Whoever watches it opens the page before the first run."""
    folder = made(tmp_path, Shape(runs=10, verdict=None, until_s=-1.0))
    with Ledger.read_only(folder.ledger) as ledger:
        health = report.fold(ledger, report.told(ledger, folder, verdict="running"))
        page = render(ledger, folder, health, now=START, live=True).decode()
    assert "0 of 10 runs settled" in page
