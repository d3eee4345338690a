"""What the engine needs of RunPod for a batch, in requests and delay: counts that are the same on every machine."""

import pytest
from fakes import in_virtual_time
from fleet import Fleet, carry

from benchmarks.durations import bimodal, exponential, fixed, lognormal


@in_virtual_time
async def test_two_requests_a_job_and_no_delay_where_requests_are_held() -> None:
    """The submit, and one held look: the server says when it is over."""
    fleet = Fleet(50, lognormal(2.0).draws(1))
    await carry(fleet, 1000, in_flight=200)
    assert fleet.requests_per_job <= 2.05
    assert fleet.delays_s[-1] <= 0.001
    assert fleet.makespan_s <= 1.01 * fleet.ideal_s
    assert fleet.most_at_once["status-sync"] <= 100, "of the 200 in flight only those that can be running"


@in_virtual_time
async def test_workers_hardly_wait_with_as_many_in_flight_as_there_are() -> None:
    """What a job's end and the next one's begin are apart is a round trip and two commits."""
    fleet = Fleet(50, lognormal(2.0).draws(1))
    await carry(fleet, 500, in_flight=50)
    assert fleet.makespan_s <= 1.01 * fleet.ideal_s + 0.02 * 500 / 50


@pytest.mark.parametrize("in_flight", [60, 200])
@in_virtual_time
async def test_few_looks_and_little_delay_where_nothing_is_held(in_flight: int) -> None:
    """status-sync is not documented: without it looks come where ends are likely."""
    fleet = Fleet(50, lognormal(2.0).draws(1))
    fleet.knows_status_sync = False
    await carry(fleet, 1000, in_flight=in_flight)
    assert fleet.requests_per_job <= 6.5
    assert fleet.mean_delay_s <= 0.3


@in_virtual_time
async def test_ends_are_learned_from_looks_alone_where_answers_have_no_times() -> None:
    """delayTime and executionTime are absent from some answers."""
    fleet = Fleet(50, lognormal(2.0).draws(1))
    fleet.knows_status_sync = fleet.tells_times = False
    await carry(fleet, 600, in_flight=60)
    assert fleet.requests_per_job <= 6.5
    assert fleet.mean_delay_s <= 0.3


@in_virtual_time
async def test_jobs_of_two_kinds_are_learned_as_such() -> None:
    """Nobody looks every second for half a minute, only because most jobs take two."""
    fleet = Fleet(50, bimodal(2.0, 30.0).draws(1))
    fleet.knows_status_sync = False
    await carry(fleet, 600, in_flight=60)
    assert fleet.requests_per_job <= 10.0
    assert fleet.mean_delay_s <= 0.6


@in_virtual_time
async def test_a_fleet_that_nobody_counts_is_followed_as_well() -> None:
    """/health may not say how many workers there are; then every job in flight may be running."""
    fleet = Fleet(50, exponential(10.0).draws(1))
    fleet.tells_workers = fleet.knows_status_sync = False
    await carry(fleet, 300, in_flight=60)
    assert fleet.mean_delay_s <= 0.8
    fleet = Fleet(50, exponential(10.0).draws(1))
    fleet.tells_workers = False
    await carry(fleet, 300, in_flight=60)
    assert fleet.requests_per_job <= 2.05
    assert fleet.delays_s[-1] <= 0.001


@in_virtual_time
async def test_more_workers_than_were_told_are_noticed_by_what_they_end() -> None:
    """An endpoint scales up between two looks at its health."""
    fleet = Fleet(100, lognormal(2.0).draws(1))
    fleet.workers = 1  # is what it says
    await carry(fleet, 1000, in_flight=200)
    late = [one for one in fleet.delays_s if one > 0.01]
    assert len(late) <= 300
    assert fleet.requests_per_job <= 2.05


@pytest.mark.parametrize(
    ("knows_status_sync", "latency_s"),
    [pytest.param(True, 0.15, id="held, a slow network"), pytest.param(False, 0.0, id="polled")],
)
@in_virtual_time
async def test_runpods_own_limits_are_reached_and_never_passed(knows_status_sync: bool, latency_s: float) -> None:
    """95 % of the table, in windows of the server's own clock: no 429, and no tenth of the time lost."""
    fleet = Fleet(300, fixed(0.5).draws(1))
    fleet.knows_status_sync, fleet.latency_s = knows_status_sync, latency_s
    await carry(fleet, 3000, in_flight=300, limits=True)
    assert fleet.meter is not None
    assert fleet.meter.refused == {}
    assert fleet.makespan_s <= 1.1 * 3000 / 100
