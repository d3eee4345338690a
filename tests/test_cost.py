"""What attempts cost: what their outputs tell, what counts where they don't, and how far an amount may be trusted."""

import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from happened import a_run, a_settled, accepted, an_ending, ended, intended, new_store, opened_store
from job_files import opened, runs
from terminal import runner, write

from runner import results
from runner.artifacts import Artifacts
from runner.cost import Basis, Costs, basis, label, spent_usd, total
from runner.events import Ending
from runner.judge import StopAt, may_widen, stop_reason
from runner.ledger import Ledger
from runner.money import past
from runner.outputs import Outputs
from runner.page.overview import money, verdict
from runner.report import Told, fold
from runner.states import Outcome, State
from runner.tally import JobTally, Tally
from runner.values import MISSING, JsonValue, parse
from runner.work import Work

# What an attempt tells


async def priced(folder: Path, cost: str, ending: Ending) -> float | None:
    """What the attempt with this *ending* cost, by the job's expression."""
    job: dict[str, Any] = {"cost": cost, "rows": {"inline": [{"usd": 0.5}]}}
    outputs = Outputs(opened(folder, job).templates["only"], {}, cast(Artifacts, None), loopback=True)
    return (await outputs.finish(Work(runs(folder, job)[0], attempts=1), ending)).cost_usd


def an_output(output: JsonValue, outcome: Outcome = Outcome.COMPLETED) -> Ending:
    """An attempt that gave *output*, and took 2 s."""
    return an_ending(outcome, output=output, execution_time_ms=2000)


@pytest.mark.parametrize(
    ("cost", "output", "usd"),
    [
        pytest.param("output.usage.cost_usd", {"usage": {"cost_usd": 0.0123}}, 0.0123, id="a key of it"),
        pytest.param("output.tokens * 0.000002", {"tokens": 1500}, 0.003, id="made of it"),
        pytest.param("output.usd", {"usd": 0}, 0.0, id="nothing, which is told"),
        pytest.param("row.usd", {"x": 1}, 0.5, id="of the row"),
        pytest.param("execution_time_ms / 1000 * 0.01", None, 0.02, id="of the time"),
    ],
)
async def test_an_output_tells_what_its_attempt_cost(tmp_path: Path, cost: str, output: JsonValue, usd: float) -> None:
    """Only the worker knows what the tokens cost that it has used."""
    assert await priced(tmp_path, cost, an_output(output)) == pytest.approx(usd)


async def test_an_attempt_that_failed_costs_what_it_says_too(tmp_path: Path) -> None:
    """What it used until then is paid for."""
    assert await priced(tmp_path, "output.usd", an_output({"usd": 0.1}, Outcome.FAILED)) == 0.1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"usd": -1}, "expected an amount of USD, at least 0, found -1"),
        ({"usd": "0.10"}, "expected an amount of USD, at least 0, found '0.10'"),
        ({"usd": True}, "expected an amount of USD, at least 0, found true"),
        ({"usd": None}, "expected an amount of USD, at least 0, found null"),
        ({"usd": 1e12}, "expected an amount of USD, at least 0, found 1000000000000.0"),
        ({"price": 1}, "there is no 'usd' here; known: 'price'"),
        ("text", "'text' has no 'usd'"),
    ],
    ids=["negative", "text", "true", "null", "absurd", "missing", "no mapping"],
)
async def test_what_is_no_amount_counts_as_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, output: JsonValue, message: str
) -> None:
    """And the log says why: a wrong expression must not pass for a batch that cost nothing."""
    with caplog.at_level(logging.WARNING):
        assert await priced(tmp_path, "output.usd", an_output(output)) is None
    assert [record.getMessage() for record in caplog.records] == [f"cost: {message}"]


async def test_an_attempt_without_output_tells_nothing_and_is_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is told elsewhere."""
    with caplog.at_level(logging.WARNING):
        assert await priced(tmp_path, "output.usd", an_output(MISSING, Outcome.FAILED)) is None
    assert not caplog.records


async def test_a_wrong_expression_is_logged_some_times_and_not_for_every_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A million times the same line would bury all else."""
    job = {"cost": "output.usd"}
    outputs = Outputs(opened(tmp_path, job).templates["only"], {}, cast(Artifacts, None), loopback=True)
    work = Work(runs(tmp_path, job)[0], attempts=1)
    for _ in range(30):
        await outputs.finish(work, an_output({}))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 20
    assert told[-1].endswith("; no more of these are logged")


# What is kept of it


def test_a_line_has_what_was_told_and_a_restart_reads_it_back() -> None:
    """A kill between line and ledger must not forget money."""
    told = a_settled(a_run(), ending=an_ending(cost_usd=0.25))
    assert parse(told.line)["cost_usd"] == 0.25
    assert results.settled(told.line).ending == told.ending
    assert "cost_usd" not in parse(a_settled(a_run()).line)


def test_a_result_that_is_reused_cost_nothing_this_time() -> None:
    """Added up over batches, it would be paid for once more with each."""
    text = results.line(
        a_run(),
        an_ending(cost_usd=0.25),
        state=State.SUCCEEDED,
        attempts=0,
        job_id=None,
        submitted_at=None,
        settled_at=1.0,
        reused_from="20270114T080000Z-7f3a",
    )
    assert "cost_usd" not in parse(text)


def test_a_kill_between_line_and_ledger_loses_no_money(tmp_path: Path) -> None:
    """The line is adopted, with what it cost."""
    store, run = new_store(tmp_path), a_run()
    store.write([intended(run), accepted(run)])
    store.close()
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(a_settled(run, ending=an_ending(execution_time_ms=5, cost_usd=0.25)).line)
    store = opened_store(tmp_path)
    assert (store.repair(), store.ledger.costs()) == (1, {"photos": Costs(1, 0.25, 1, 5)})
    store.close()


def test_the_ledger_adds_up_what_was_told_by_every_attempt(tmp_path: Path) -> None:
    """Also what was tried again; what was not told, and what was refused before it cost anything, apart."""
    one, other, refused = a_run("k1"), a_run("k2"), a_run("k3")
    store = new_store(tmp_path)
    store.write([intended(one), accepted(one)])
    store.write([ended(one, ending=an_ending(Outcome.CRASHED, execution_time_ms=70, cost_usd=0.5))])
    store.write([intended(one, 2), accepted(one, 2), a_settled(one, 2, an_ending(cost_usd=0.25))])
    store.write([intended(other), accepted(other), a_settled(other, 1, an_ending(execution_time_ms=30))])
    store.write([intended(refused), a_settled(refused, 1, an_ending(Outcome.REJECTED))])
    assert store.ledger.costs() == {"photos": Costs(2, 0.75, 1, 70)}
    assert store.ledger.untold("photos") == 1
    assert [past.ending and past.ending.cost_usd for past in store.ledger.attempts("k1")] == [0.5, 0.25]
    tally = Tally({"photos": 3})
    tally.restore(store.ledger.counts(), store.ledger.spent(), costs=store.ledger.costs())
    assert tally.jobs["photos"].spent_usd(1.0) == pytest.approx(0.75 + 0.03)
    store.close()


def test_a_ledger_of_an_older_runner_is_read_and_gone_on_with(tmp_path: Path) -> None:
    """It has no column for what was told: nothing was, and from now on there is one."""
    store = new_store(tmp_path)
    store.write([intended(a_run()), accepted(a_run()), a_settled(a_run(), ending=an_ending(execution_time_ms=5))])
    store.close()
    (tmp_path / ".ledger.seal").unlink(missing_ok=True)  # it is of the file as it is now
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db:
        db.execute("DROP INDEX attempts_by_cost")
        db.execute("ALTER TABLE attempts DROP COLUMN cost_usd")
        db.commit()
    with Ledger.read_only(tmp_path / "ledger.sqlite") as ledger:
        assert (ledger.costs(), ledger.untold("photos"), ledger.spent()) == ({}, 1, {"photos": (1, 5)})
        assert [past.ending and past.ending.cost_usd for past in ledger.attempts("k1")] == [None]
    store = opened_store(tmp_path)
    other = a_run("k2")
    store.write([intended(other), accepted(other), a_settled(other, ending=an_ending(cost_usd=0.25))])
    assert store.ledger.costs() == {"photos": Costs(1, 0.25, 0, 0)}
    store.close()
    opened_store(tmp_path).close()


# What it comes to


@pytest.mark.parametrize(
    ("costs", "execution_ms", "rate", "expected"),
    [
        pytest.param(Costs(), 2000, 0.01, 0.02, id="execution only"),
        pytest.param(Costs(2, 0.5, 2, 2000), 2000, 0.01, 0.5, id="told alone, though there is a rate"),
        pytest.param(Costs(1, 0.5, 1, 1500), 2000, 0.01, 0.505, id="the others by their time"),
        pytest.param(Costs(1, 0.5, 1, 1500), 2000, None, 0.5, id="no rate for the others"),
        pytest.param(Costs(), 2000, None, None, id="nothing is known"),
    ],
)
def test_what_was_told_takes_the_place_of_execution_time(
    costs: Costs, execution_ms: int, rate: float | None, expected: float | None
) -> None:
    """Counted both ways it would be paid for twice."""
    assert spent_usd(execution_ms, costs, rate) == (None if expected is None else pytest.approx(expected))


def test_an_amount_says_how_far_it_may_be_trusted() -> None:
    """A lower bound that passes for the bill is a surprise at the end of the month."""
    assert basis(Costs(), 0, is_asked=False) is Basis.EXECUTION
    assert basis(Costs(), 3, is_asked=True) is Basis.EXECUTION
    assert basis(Costs(3, 1.0), 0, is_asked=True) is Basis.EXACT
    assert basis(Costs(3, 1.0), 1, is_asked=True) is Basis.MIXED
    assert label("1.20", "exact") == "1.20 USD"
    assert label("1.20", "execution") == label("1.20", None) == "at least 1.20 USD, execution only"
    assert label("1.20", "mixed", 1) == "at least 1.20 USD, 1 attempt told no cost"
    assert label("1.20", "mixed", 3) == "at least 1.20 USD, 3 attempts told no cost"
    assert label("1.20", "mixed") == "at least 1.20 USD, in part execution only"


def test_a_batch_is_as_exact_as_all_of_its_jobs() -> None:
    """What one of them cost is not known, then neither is the sum; one that has no runs says nothing."""
    exact, bound = {"runs": 1, "cost_usd": 0.5, "cost_basis": "exact"}, {"runs": 1, "cost_usd": 0.25}
    unknown, empty = {"runs": 1, "cost_usd": None}, {"runs": 0, "cost_usd": None}
    assert total([exact, exact, empty]) == (1.0, Basis.EXACT)
    assert total([bound, bound]) == (0.5, Basis.EXECUTION)
    assert total([exact, bound]) == (0.75, Basis.MIXED)
    assert total([exact, unknown]) == (None, None)
    assert total([empty]) == total([]) == (None, None)


FACTS = Told(
    batch="20261123T022312Z-7f3a",
    name="horses",
    planned={"photos": 2},
    endpoint_of={"photos": "sdxl"},
    cost_per_second={"sdxl": None},
    started_at=0.0,
    ended_at=9.5,
    verdict="pass",
    telling=("photos",),
)


@pytest.mark.parametrize(
    ("told", "rate", "expected"),
    [
        pytest.param([0.5, 0.25], None, (0.75, "exact", 0), id="all told"),
        pytest.param([0.5, None], None, (0.5, "mixed", 1), id="one did not"),
        pytest.param([0.5, None], 0.01, (0.52, "mixed", 1), id="one did not, and there is a rate"),
        pytest.param([None, None], 0.01, (0.04, "execution", 2), id="none did, and there is a rate"),
        pytest.param([None, None], None, (None, None, 2), id="none did"),
        pytest.param([], None, (0.0, "exact", 0), id="nothing was sent"),
    ],
)
def test_the_report_says_what_a_job_cost_and_how_that_is_known(
    tmp_path: Path, told: list[float | None], rate: float | None, expected: tuple[float | None, str | None, int]
) -> None:
    """The page and health.json say the same."""
    store = new_store(tmp_path)
    for number, usd in enumerate(told):
        run, ending = a_run(f"k{number}", index=number), an_ending(execution_time_ms=2000, cost_usd=usd)
        store.write([intended(run), accepted(run), a_settled(run, ending=ending)])
    health = fold(store.ledger, replace(FACTS, cost_per_second={"sdxl": rate}))
    store.close()
    job = health["jobs"]["photos"]
    assert (job["cost_usd"], job["cost_basis"], job["cost_untold"]) == expected
    assert (health["batch"]["cost_usd"], health["batch"]["cost_basis"]) == expected[:2]
    shown = money(health)
    head, section = verdict(health, now=10.0).text, shown.text if shown is not None else ""
    if expected[1] == "exact":
        assert "exact, as outputs tell" in head
        assert "Exact: every attempt told what it cost." in section
    elif expected[1] == "mixed":
        assert "1 attempt told none" in head
        assert "the others with their execution only: a lower bound. 1 attempt told no cost that can be" in section
    elif expected[1] == "execution":
        assert "execution only" in head
        assert "2 attempts told no cost that can be meant" in section


def test_a_page_that_is_watched_says_what_an_hour_costs(tmp_path: Path) -> None:
    """Whoever watches may want to stop it."""
    store = new_store(tmp_path)
    store.write([intended(a_run()), accepted(a_run()), a_settled(a_run(), ending=an_ending(cost_usd=0.5))])
    health = fold(store.ledger, replace(FACTS, ended_at=None, verdict="running"))
    store.close()
    assert "exact, as outputs tell; 180.00 USD an hour so far" in verdict(health, now=10.0).text


# Budgets


def a_job(told: int, untold: int, *, usd: float = 0.1, in_flight: int = 0) -> JobTally:
    """A job of a hundred runs, of which so many attempts took a second and told, or did not tell, what they cost."""
    job = JobTally(100, in_flight=in_flight)
    for _ in range(told):
        job.ended(1000, usd)
    for _ in range(untold):
        job.ended(1000)
    return job


def test_a_budget_counts_what_is_told() -> None:
    """Execution time may say a tenth of it."""
    at = StopAt(cost_usd=1.0, usd_per_s=0.001)
    assert stop_reason(a_job(9, 0), at) is None
    assert stop_reason(a_job(10, 0), at) == "stop_when: 1.0000 USD spent (limit 1.00 USD)"
    reason = "stop_when: 0.8000 USD spent and about 0.2000 USD in flight (limit 1.00 USD)"
    assert stop_reason(a_job(8, 0, in_flight=2), at) == reason


def test_without_a_rate_attempts_that_tell_nothing_count_as_the_others() -> None:
    """Those that failed cost something, too."""
    at = StopAt(cost_usd=1.0)
    assert stop_reason(a_job(5, 4), at) is None
    assert stop_reason(a_job(5, 5), at) == "stop_when: 1.0000 USD spent (limit 1.00 USD)"


def test_a_budget_that_nobody_can_keep_stops_the_job() -> None:
    """An expression that never tells would be a blank cheque."""
    at = StopAt(cost_usd=1.0)
    assert stop_reason(a_job(0, 4), at) is None
    assert stop_reason(a_job(0, 5), at) == (
        "stop_when: none of 5 attempts told what it cost, so nobody knows what is spent (limit 1.00 USD);"
        " mend 'cost', or give the endpoint its cost_per_second"
    )
    assert stop_reason(a_job(0, 5), StopAt(cost_usd=1.0, usd_per_s=0.001)) is None


def test_without_a_rate_one_attempt_is_made_first() -> None:
    """Until it has told, nobody knows what two cost."""
    at = StopAt(cost_usd=1.0)
    assert not may_widen(a_job(0, 0), at)
    assert not may_widen(a_job(0, 2), at)
    assert may_widen(a_job(1, 0, in_flight=7), at)
    assert not may_widen(a_job(1, 0, in_flight=8), at)


# Whole batches

HANDLER = """
def handler(job):
    n = job["input"]["n"]
    if n == 3:
        raise ValueError("no")
    return {"usage": {"cost_usd": 0.01 * n if n != 4 else "free"}}
"""
JOB_FILE = """\
version: 1
name: told
endpoints: {local: {handler: "handler.py:handler"}}
jobs:
  exact: {endpoint: local, rows: {inline: [{n: 1}, {n: 2}]}, input: {n: "{{ row.n }}"}, cost: output.usage.cost_usd}
  mixed:
    endpoint: local
    rows: {inline: [{n: 1}, {n: 2}, {n: 3}, {n: 4}]}
    input: {n: "{{ row.n }}"}
    cost: output.usage.cost_usd
    thresholds: {cost: "< 0.02 USD"}
  budget:
    endpoint: local
    rows: {inline: [{n: 5}], repeat: 20}
    input: {n: "{{ row.n }}"}
    cost: output.usage.cost_usd
    stop_when: {cost: 0.10 USD}
"""


def test_a_batch_knows_what_it_cost_where_outputs_tell(tmp_path: Path) -> None:
    """In the summary, the line for programs, health.json, the metrics, and in the plan of the next one."""
    write(tmp_path, {"handler.py": HANDLER, "job.yaml": JOB_FILE})
    ran = runner("run", "job.yaml", "--quiet", "--summary", "json", "--prometheus", "m.prom", cwd=tmp_path)
    assert ran.code == 1
    folder = tmp_path / "batches/told/latest"
    health = json.loads((folder / "health.json").read_text())["jobs"]
    assert [(job["cost_usd"], job["cost_basis"]) for job in health.values()] == [
        (0.03, "exact"),
        (0.03, "mixed"),
        (pytest.approx(0.1), "exact"),
    ]
    assert "  exact   2 of 2 succeeded" in ran.err
    assert ", 0.0300 USD\n" in ran.err
    assert ", at least 0.0300 USD, 2 attempts told no cost\n" in ran.err
    assert "  threshold mixed: cost < 0.02 USD: 0.0300 USD\n" in ran.err
    assert "  budget: stop_when: 0.1000 USD spent (limit 0.10 USD)\n" in ran.err
    assert (ran.json["cost_usd"], ran.json["cost_basis"]) == (pytest.approx(0.16), "mixed")
    metrics = (tmp_path / "m.prom").read_text()
    assert 'runner_cost_usd{batch="told",job_name="exact",basis="exact"} 0.03\n' in metrics
    assert 'runner_cost_usd{batch="told",job_name="mixed",basis="mixed"} 0.03\n' in metrics
    assert "runner_execution_cost_usd" not in metrics
    found = past(folder.resolve().parent, "exact", {"handler": "handler.py:handler"})
    assert found is not None
    assert found.run_usd == pytest.approx(0.015)
    assert found.basis == "exact"
    planned = runner("plan", "job.yaml", "--job", "exact", cwd=tmp_path).out
    assert "; about 0.03 USD at 0.015 a run, as outputs told\n" in planned
    assert "  cost: as outputs tell it, no rate for those that do not\n" in planned
