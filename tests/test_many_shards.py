"""Many shards against one endpoint's limits, on virtual time: what docs/scale.md says of them."""

import pytest

from benchmarks.many_shards import keep, slowest


@pytest.mark.parametrize(("shards", "seed"), [(4, 1), (16, 2), (95, 3)])
def test_no_shard_is_ever_refused_though_none_knows_of_another(shards: int, seed: int) -> None:
    """Each keeps its part by itself; the endpoint would refuse one submit more than the file allows."""
    kept = keep(shards, seed=seed, for_s=22.0)
    assert kept.refused == 0
    assert kept.taken > 1400


def test_undivided_they_would_be_refused_most_of_the_time() -> None:
    """What processes do that were started with the same file and are no shards."""
    assert keep(4, seed=1, for_s=12.0, divided=False).refused > 0


def test_the_last_shard_ends_about_when_all_would_as_one() -> None:
    """Keys fall evenly, and parts of the default rate differ by one at most."""
    assert slowest(16, 1_000_000, seed=1) < 1.02
    assert slowest(16, 100_000_000, seed=1) < 1.01
