"""What a report draws, held against the lines of results.jsonl and the plainest way to count them."""

import sqlite3
import tracemalloc
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median_low

import pytest
from made_batches import START, Shape, made

from runner import report, results
from runner.batch import Folder
from runner.clock import iso
from runner.ledger import Ledger
from runner.page.document import render
from runner.page.figures import Figures, fold, left_s
from runner.page.pauses import between
from runner.page.phases import Phase
from runner.page.timelines import MOST_BARS, MOST_LANES
from runner.values import JsonObject

Drawn = tuple[Figures, list[JsonObject], JsonObject]


def drawn(folder: Folder, **told: str) -> Drawn:
    """The figures of the batch in *folder*, its lines, and its health report."""
    with Ledger.read_only(folder.ledger) as ledger:
        health = report.fold(ledger, report.told(ledger, folder, **told))
        return fold(ledger, folder, health, now=START), list(results.read(folder.results)), health


def written(folder: Folder) -> str:
    """The page of the batch in *folder*."""
    with Ledger.read_only(folder.ledger) as ledger:
        return render(ledger, folder, report.fold(ledger, report.told(ledger, folder)), now=START).decode()


def moment(at: float) -> str:
    """*at* as a page says it."""
    return iso(at)[:19].replace("T", " ")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A batch of 400 runs in which one in five attempts fails."""
    return drawn(made(tmp_path_factory.mktemp("usual"), Shape(runs=400, failing=0.2)))


def test_every_settled_run_is_in_one_bin_of_time(usual: Drawn) -> None:
    """The last moment too."""
    figures, lines, _ = usual
    counts = Counter(line["state"] for line in lines)
    assert {state.value: sum(bins) for state, bins in figures.settled.items()} == {
        word: counts[word] for word in ("succeeded", "failed", "cancelled")
    }


def test_runs_in_flight_add_up_to_the_time_of_all_attempts(usual: Drawn) -> None:
    """What is drawn over time is what the account of time says, phase by phase."""
    figures, _, _ = usual
    for phase, bins in figures.in_flight.items():
        assert sum(bins) * figures.span.bin_s == pytest.approx(figures.time_s[phase])
    assert sum(figures.time_s.values()) > 0


def test_distributions_hold_every_time(usual: Drawn) -> None:
    """Also those beyond the ends of a rounded axis."""
    figures, lines, _ = usual
    found = {(one.job, one.column): sum(one.counts) for one in figures.distributions}
    assert found == {
        (job, column): sum(line["job"] == job and line[column] is not None for line in lines)
        for job in ("photos", "captions")
        for column in ("delay_time_ms", "execution_time_ms")
    }


def test_the_slowest_runs_are_the_slowest(usual: Drawn) -> None:
    """Of all jobs together."""
    figures, lines, _ = usual
    longest = sorted((line["execution_time_ms"] for line in lines), reverse=True)[:10]
    assert [run.execution_time_ms for run in figures.slowest] == longest


def test_every_run_that_failed_is_in_a_group(usual: Drawn) -> None:
    """With runs to look at."""
    figures, lines, _ = usual
    failed = sum(line["state"] == "failed" for line in lines)
    assert sum(one.group.count for one in figures.failures) + figures.failures_left == failed
    assert all(one.examples for one in figures.failures)
    assert [one.group.count for one in figures.failures] == sorted(
        (one.group.count for one in figures.failures), reverse=True
    )


def test_each_value_of_a_matrix_has_its_runs(usual: Drawn) -> None:
    """Which seed or size fails, and which is slow, is what a grid is run for."""
    figures, lines, _ = usual
    assert figures.matrix is not None
    found = {
        (axis.job, axis.name, cell.value): (cell.runs, cell.succeeded, cell.execution_ms)
        for axis in figures.matrix
        for cell in axis.cells
    }
    expected = {}
    for name in ("seed", "size"):
        for value in {line["matrix"][name] for line in lines if line["matrix"]}:
            those = [line for line in lines if line["matrix"] and line["matrix"][name] == value]
            times = [line["execution_time_ms"] for line in those]
            won = sum(line["state"] == "succeeded" for line in those)
            expected["photos", name, str(value)] = (len(those), won, median_low(times))
    assert found == expected


def test_a_timeline_has_each_attempt_once(usual: Drawn) -> None:
    """In its worker's row, whatever else that worker did."""
    figures, _, _ = usual
    assert figures.timeline.columns == 0
    bars = [bar for row in figures.timeline.rows for bar in row.bars]
    assert len(bars) == figures.attempts == sum(row.attempts for row in figures.timeline.rows)
    for row in figures.timeline.rows:
        for lane in range(row.lanes):
            ends = [(bar.stretches[0][1], bar.stretches[-1][2]) for bar in row.bars if bar.lane == lane]
            assert all(before[1] <= after[0] for before, after in pairwise(ends))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape(runs=3_000, workers=40, in_flight=100, execution_s=1.0), id="many attempts"),
        pytest.param(Shape(runs=900, workers=2, in_flight=MOST_LANES + 100, execution_s=1.0), id="many at once"),
    ],
)
def test_a_timeline_of_many_is_drawn_in_bins(tmp_path: Path, shape: Shape) -> None:
    """Never more than a thousand bars, and all the time that was executed is in them."""
    figures, _, _ = drawn(made(tmp_path, shape))
    timeline = figures.timeline
    assert timeline.columns * len(timeline.rows) <= MOST_BARS
    assert timeline.columns > 0
    busy_s = sum(sum(row.busy) for row in timeline.rows) * timeline.span.bin_s
    assert busy_s == pytest.approx(figures.time_s[Phase.EXECUTION])
    assert sum(row.attempts for row in timeline.rows) == figures.attempts
    workers = sum(row.others or (row.worker is not None) for row in timeline.rows)
    assert workers == shape.workers + 2


def test_workers_are_shown_until_the_batch_ended(usual: Drawn) -> None:
    """What came after that nobody looked at."""
    figures, _, health = usual
    last = figures.span.bin(datetime.fromisoformat(health["batch"]["ended_at"]).timestamp())
    for looks in figures.samples.values():
        assert None not in looks[: last + 1]
        assert set(looks[last + 1 :]) <= {None}


def test_a_batch_that_was_cut_off_is_shown_as_far_as_it_is_known(tmp_path: Path) -> None:
    """Its attempts under way go on until the last that was heard of any."""
    figures, lines, health = drawn(made(tmp_path, Shape(runs=200, verdict=None, until_s=60.0)), verdict="unfinished")
    assert health["batch"]["pending"] == 200 - len(lines) > 0
    assert figures.span.start == START
    assert 59 < figures.axis.high < 120
    assert figures.time_s[Phase.UNTOLD] > 0


def test_a_night_between_a_kill_and_its_resume_is_left_out(tmp_path: Path) -> None:
    """What happened would be a line at each end of the picture; and nobody waited at night."""
    folder = made(tmp_path, Shape(runs=400, failing=0.2))
    whole, _, _ = drawn(folder)
    killed_at, night_s = START + 200.0, 8 * 3600.0
    with sqlite3.connect(folder.ledger) as db:
        for table, column in (
            *(("attempts", one) for one in ("intended_at", "submitted_at", "ended_at")),
            ("runs", "settled_at"),
            ("samples", "at"),
        ):
            db.execute(f"UPDATE {table} SET {column} = {column} + ? WHERE {column} > ?", (night_s, killed_at))
        db.execute("UPDATE meta SET value = value + ? WHERE name = 'ended_at'", (night_s,))
    db.close()
    figures, _, _ = drawn(folder)
    assert figures.pauses.total_s == pytest.approx(night_s, abs=30)
    assert whole.axis.high <= figures.axis.high < whole.axis.high * 1.5
    assert {state: sum(bins) for state, bins in figures.settled.items()} == {
        state: sum(bins) for state, bins in whole.settled.items()
    }
    assert sum(figures.time_s.values()) == pytest.approx(sum(whole.time_s.values()), rel=0.1)
    assert len(figures.timeline.rows) == len(whole.timeline.rows)
    page = written(folder)
    assert f"without the pause from {moment(figures.pauses.stretches[0][0])} to" in page


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([], [], id="no looks"),
        pytest.param([0.0], [], id="one look"),
        pytest.param([0.0, 3600.0], [], id="one an hour"),
        pytest.param([0.0, 15.0, 30.0, 45.0], [], id="all the time"),
        pytest.param([0.0, 15.0, 30.0, 120.0], [], id="a slow one"),
        pytest.param([0.0, 15.0, 30.0, 4000.0, 4015.0], [(45.0, 3985.0)], id="a pause"),
        pytest.param([0.0, 0.25, 0.5, 4000.0], [(12.5, 3988.0)], id="hardly begun"),
    ],
)
def test_who_is_not_there_does_not_look(looks: list[float], expected: list[tuple[float, float]]) -> None:
    """A look that takes long, or is rarely wished, is no pause."""
    assert between(looks) == expected


def test_what_is_left_is_guessed_from_what_settled_of_late(tmp_path: Path) -> None:
    """Workers take a while to start: the whole time so far would make it too long."""
    figures, lines, health = drawn(made(tmp_path, Shape(runs=600, verdict=None, until_s=240.0)), verdict="unfinished")
    guessed = left_s(figures, health["batch"]["pending"], now=START + 240.0)
    assert guessed == pytest.approx(400, rel=0.25)  # it takes 651 s in all, and the last run of them is slow
    assert left_s(figures, 10, now=START) is None
    assert lines


def test_the_memory_of_a_report_does_not_grow_with_its_batch(tmp_path: Path) -> None:
    """A million runs have a report as well."""
    folder = made(tmp_path, Shape(runs=8_000, workers=30, in_flight=100, execution_s=0.5))
    with Ledger.read_only(folder.ledger) as ledger:
        health = report.fold(ledger, report.told(ledger, folder))
        render(ledger, folder, health, now=START)  # what is made once and kept is not of this batch
        tracemalloc.start()
        try:
            render(ledger, folder, health, now=START)
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most_bytes < 4_000_000
