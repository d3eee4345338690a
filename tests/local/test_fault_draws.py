from hypothesis import given
from hypothesis import strategies as st

from runner.local import fault_text
from runner.local.faults import OPERATIONS, Draws


def draws(*texts: str, seed: int = 0, endpoint: str = "ep") -> Draws:
    """The draws of one endpoint on the day that *texts* describe."""
    return Draws(endpoint, fault_text.faults(texts).faults, seed)


def kinds(day: Draws, operation: str, count: int, *, age_s: float = 0.0, job_age_s: float | None = None) -> list[str]:
    """The kinds of the next so many faults of one operation, "" for none."""
    found = [day.draw(operation, age_s=age_s, job_age_s=job_age_s) for _ in range(count)]
    return ["" if fault is None else str(fault.kind) for fault in found]


@given(seed=st.integers(), asked=st.lists(st.sampled_from(OPERATIONS), max_size=60))
def test_the_same_requests_meet_the_same_faults(seed: int, asked: list[str]) -> None:
    """Whatever the seed, and in whatever order operations come."""
    texts = ("429=20%", "run:reset_after=20%", "cut=3/7", "502_after=10%")
    one, two = draws(*texts, seed=seed), draws(*texts, seed=seed)
    assert [kinds(one, name, 1) for name in asked] == [kinds(two, name, 1) for name in asked]


@given(looks=st.lists(st.integers(min_value=0, max_value=5), min_size=30, max_size=30))
def test_how_often_a_client_looks_does_not_change_what_its_submits_meet(looks: list[int]) -> None:
    """Timing decides how many polls there are; a bad day must be the same without them."""
    quiet, busy = draws("429=30%"), draws("429=30%")
    expected = kinds(quiet, "run", 30)
    found = []
    for count in looks:
        kinds(busy, "status", count)
        found += kinds(busy, "run", 1)
    assert found == expected


def test_seeds_and_endpoints_have_days_of_their_own() -> None:
    """Two endpoints that fail in step would hide what one failing does to the other."""
    days = [kinds(draws("500=50%", seed=seed, endpoint=name), "run", 64) for seed in (0, 1) for name in ("a", "b")]
    assert len({tuple(day) for day in days}) == 4


def test_a_share_of_requests_fails_by_chance() -> None:
    """Five percent of many are about five percent."""
    found = kinds(draws("429=5%"), "status", 10_000)
    assert 400 < found.count("429") < 600


def test_bursts_come_at_the_beginning_or_again_and_again() -> None:
    """A burst of refusals is what a full queue or a deploy looks like."""
    assert kinds(draws("429=3"), "run", 8) == ["429"] * 3 + [""] * 5
    assert kinds(draws("429=2/4"), "run", 8) == ["429", "429", "", ""] * 2
    assert kinds(draws("429"), "run", 2) == ["429", "429"]


def test_a_fault_keeps_to_its_operation_and_to_what_it_can_happen_to() -> None:
    """A stream's fault in a submit would be no fault of RunPod's."""
    assert kinds(draws("status:502"), "run", 1) == [""]
    assert kinds(draws("status:502"), "status", 1) == ["502"]
    assert [kinds(draws("duplicate_chunk"), name, 1) for name in ("stream", "status")] == [["duplicate_chunk"], [""]]
    assert [kinds(draws("paused"), name, 1) for name in ("run", "health")] == [["paused"], [""]]


def test_of_several_that_are_due_the_first_happens_and_all_of_them_roll() -> None:
    """Adding a fault at the end changes nothing for those before it."""
    assert kinds(draws("502=2", "429=4"), "run", 5) == ["502", "502", "429", "429", ""]
    alone, first = kinds(draws("500=30%"), "run", 50), kinds(draws("500=30%", "429"), "run", 50)
    assert [kind or "429" for kind in alone] == first


def test_a_duration_counts_from_the_start_and_for_a_hidden_job_from_its_submit() -> None:
    """An endpoint is slow to wake; a job is slow to be seen."""
    paused, hidden = draws("paused=8s"), draws("not_found=500ms")
    assert [kinds(paused, "run", 1, age_s=age_s) for age_s in (0.0, 7.9, 8.0)] == [["paused"], ["paused"], [""]]
    ages = (0.0, 0.49, 0.5, None)
    found = [kinds(hidden, "status", 1, age_s=100.0, job_age_s=age_s) for age_s in ages]
    assert found == [["not_found"], ["not_found"], [""], [""]]
