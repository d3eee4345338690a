"""``stop_when.cost`` as a budget: a real endpoint, real processes, and what was spent in the end."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from terminal import runner, write

BUDGET_USD = 0.10
RATE_USD = 0.5
RUNS = 1000
"""Each takes at least 20 ms, so 0.01 USD at this rate, and all of them at least 10 USD."""

HANDLER = """
import time

def handler(job):
    time.sleep(0.02)
    return job["input"]["n"]
"""


@dataclass(frozen=True)
class Paid:
    """An attempt: when it was begun and ended, and what its execution cost."""

    intended_at: float
    ended_at: float
    usd: float


def paid(ledger: Path) -> list[Paid]:
    """The attempts of a batch, as they ended."""
    with closing(sqlite3.connect(ledger)) as db:
        rows = db.execute("SELECT intended_at, ended_at, execution_time_ms FROM attempts ORDER BY ended_at").fetchall()
    return [Paid(intended, ended, ms / 1000 * RATE_USD) for intended, ended, ms in rows]


@pytest.mark.parametrize("concurrency", ["concurrency: 4, ", ""], ids=["four in flight", "as many as runner wants"])
def test_a_budget_is_passed_by_no_more_than_what_was_in_flight(tmp_path: Path, concurrency: str) -> None:
    """0.10 USD of a batch of 10 USD; who set it hears of it, and a script gets exit 1."""
    write(
        tmp_path,
        {
            "handler.py": HANDLER,
            "job.yaml": "version: 1\nname: budget\n"
            f"endpoints: {{local: {{handler: 'handler.py:handler', workers: 4, cost_per_second: {RATE_USD}}}}}\n"
            f"jobs:\n  dear: {{endpoint: local, {concurrency}rows: {{repeat: {RUNS}}}, input: {{n: 1}},"
            f" stop_when: {{cost: {BUDGET_USD} USD}}}}\n",
        },
    )
    ran = runner("run", "job.yaml", "--quiet", cwd=tmp_path)
    assert ran.code == 1
    assert ran.err.startswith("stopped: budget ")
    assert "  dear: stop_when: " in ran.err
    assert "(limit 0.10 USD)\n" in ran.err
    attempts = paid(tmp_path / "batches/budget/latest/ledger.sqlite")
    total = sum(one.usd for one in attempts)
    reached_at, sofar = attempts[-1].ended_at, 0.0
    for one in attempts:
        sofar += one.usd
        if sofar >= BUDGET_USD:
            reached_at = one.ended_at
            break
    flying = [one for one in attempts if one.intended_at <= reached_at < one.ended_at]
    assert not [one for one in attempts if one.intended_at > reached_at]
    assert total <= sofar + sum(one.usd for one in flying) + 1e-9
    assert sofar <= BUDGET_USD + max(one.usd for one in attempts)
