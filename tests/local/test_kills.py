"""The short form of `make torture-local`."""

from torture.workers import Case, play


async def test_two_hundred_jobs_outlive_ten_random_kills_of_their_workers() -> None:
    """Each ends as RunPod would end it: on its second worker, or given up when it lost both; none is stuck."""
    story = await play(Case(seed=20_261_123, jobs=200, kills=10))
    assert story.wrong == []
