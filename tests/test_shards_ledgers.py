"""The ledgers of shards, read as one: every number is that of a single ledger with all of their runs."""

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from happened import a_run, a_settled, accepted, an_ending, ended, error, intended, new_store, skipped, unsynced
from terminal import ROOT

from runner.events import Event, Sampled
from runner.ledger import Ledger
from runner.shards_ledgers import Ledgers
from runner.shards_timings import ShardTimings, timings_of
from runner.states import Outcome
from runner.timings import Timings

JOBS = ("photos", "texts")
TIMES = ("delay_time_ms", "execution_time_ms")


def happened(chance: random.Random, number: int) -> list[Event]:
    """The life of one run: some fail, some are tried again, some are skipped."""
    run = a_run(f"{chance.getrandbits(64):016x}", chance.choice(JOBS), index=number)
    if chance.random() < 0.1:
        return [skipped(run)]
    times: dict[str, Any] = {"delay_time_ms": chance.randrange(40), "execution_time_ms": chance.randrange(1000)}
    worker = f"w{chance.randrange(4)}"
    ending = an_ending(**times, worker_id=worker)
    if chance.random() < 0.3:
        told = error(f"no horse {chance.randrange(30)}")
        ending = an_ending(Outcome.FAILED, **times, worker_id=worker, error=told)
    at = 100.0 + number
    first: list[Event] = [intended(run, at=at), accepted(run, at=at + 1)]
    if chance.random() < 0.2:
        again: list[Event] = [intended(run, 2, at=at + 3), accepted(run, 2, at=at + 4)]
        first += [ended(run, at=at + 2), *again]
        return [*first, a_settled(run, 2, ending, at=at + 5)]
    return [*first, a_settled(run, 1, ending, at=at + 5)]


@dataclass
class Both:
    """A ledger with all runs, and those of three shards as one."""

    one: Ledger
    many: Ledgers


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Two hundred runs, each also in one of three shards."""
    chance = random.Random(7)
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "first", "second", "third")]
    stores = [new_store(folder) for folder in folders]
    for store in stores:
        unsynced(store.ledger)
    for number in range(200):
        events = happened(chance, number)
        stores[0].write(events)
        stores[chance.randrange(1, 4)].write(events)
    for number, at in enumerate((100.0, 115.0, 130.0)):
        look = Sampled("sdxl", at, {"inQueue": number}, {"idle": number}, None)
        stores[0].write([look])
        stores[number + 1].write([look])
    for store in stores:
        store.close()
        store.ledger.close()
    with ExitStack() as stack:
        one = stack.enter_context(Ledger.read_only(folders[0] / "ledger.sqlite"))
        paths: dict[str, Path] = {folder.name: folder / "ledger.sqlite" for folder in folders[1:]}
        yield Both(one, Ledgers.of(stack, paths, {}))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("counts", ()),
        ("reused", ()),
        ("spent", ()),
        ("costs", ()),
        ("untold", ("photos",)),
        ("tried_again", ()),
        ("tried_again", ("texts",)),
        ("skipped_because", ("", "photos")),
        ("attempt_totals", ("photos",)),
        ("errors", ("photos",)),
        ("errors", ("texts", 3)),
        *(("percentiles", (job, column, [0.0, 50.0, 95.0, 99.0, 100.0])) for job in (*JOBS, None) for column in TIMES),
        *(("mean", (job, column)) for job in (*JOBS, None) for column in TIMES),
        ("percentiles", ("nothing", "delay_time_ms", [50.0])),
        ("mean", ("nothing", "delay_time_ms")),
    ],
)
def test_what_a_report_folds_is_the_same(both: Both, method: str, arguments: tuple[Any, ...]) -> None:
    """A percentile of percentiles is none: it is read from all times."""
    assert getattr(both.many, method)(*arguments) == getattr(both.one, method)(*arguments)


def test_looks_at_an_endpoint_come_in_the_order_of_looking(both: Both) -> None:
    """The last of them says how it is now, whichever shard looked."""
    assert list(both.many.samples()) == list(both.one.samples())


@pytest.mark.parametrize(
    ("method", "arguments", "keywords"),
    [
        ("last_at", (), {}),
        ("count", (), {}),
        ("indexes", (), {}),
        ("looks", (), {}),
        ("is_quiet", (100.0, 101.0), {}),
        ("is_quiet", (1.0, 2.0), {}),
        ("histogram", ("photos", "execution_time_ms", [0, 100, 500, 1001]), {}),
        ("artifact_totals", (), {}),
        ("artifacts", (10,), {"images": False}),
    ],
)
def test_what_a_page_draws_is_the_same(both: Both, method: str, arguments: Any, keywords: Any) -> None:
    """One picture of all shards."""
    one, many = Timings(both.one), timings_of(both.many)
    assert getattr(many, method)(*arguments, **keywords) == getattr(one, method)(*arguments, **keywords)


def test_lists_of_a_page_are_the_same(both: Both) -> None:
    """Those of which only the first are shown are the first of all, in the same order."""
    one, many = Timings(both.one), timings_of(both.many)
    assert list(many.workers()) == list(one.workers())
    assert list(many.messages("photos")) == list(one.messages("photos"))
    assert list(many.settled_runs("texts", 25)) == list(one.settled_runs("texts", 25))
    assert [run.execution_time_ms for run in many.slowest("photos", 9)] == [
        run.execution_time_ms for run in one.slowest("photos", 9)
    ]
    assert len(many.failed("photos", "no horse 3", 2)) == len(one.failed("photos", "no horse 3", 2))
    assert sorted(map(repr, many.attempts())) == sorted(map(repr, one.attempts()))
    window = {"since": 0.0, "until": 1000.0}
    assert sum(n for *_, n in many.settled(100.0, 10.0, **window)) == sum(
        n for *_, n in one.settled(100.0, 10.0, **window)
    )


@pytest.mark.parametrize(
    ("module", "name", "parts"),
    [
        ("report.py", "ledger", Ledgers),
        ("junit.py", "ledger", Ledgers),
        ("page/figures.py", "ledger", Ledgers),
        ("junit.py", "timings", ShardTimings),
        *((f"page/{page}.py", "timings", ShardTimings) for page in ("figures", "grid", "timelines")),
    ],
)
def test_whatever_a_report_asks_is_asked_of_all_shards(module: str, name: str, parts: type) -> None:
    """A new question that only a single ledger could answer would end the report of a batch in shards."""
    asked = set(re.findall(rf"(?<![.\w]){name}\.(\w+)\(", (ROOT / "runner" / module).read_text()))
    assert asked <= vars(parts).keys()
