"""Interrupts with two hundred jobs in flight on an endpoint that keeps RunPod's rate limits; more in `torture.load`."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from torture.load import looked_at, play
from torture.scene import Account

pytestmark = pytest.mark.usefixtures("forking")

CASES = ("Ctrl-C twice, then resume", "cancel from another shell", "SIGHUP", "nobody reads", "asleep")


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Future[Account]]]:
    """Every case, played at the same time: most of it is waiting for the limits to let the next call through."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {name: pool.submit(play, name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_what_is_in_flight_is_cancelled_or_kept(played: dict[str, Future[Account]], name: str) -> None:
    """
    Within the limits, and never unasked; what the ledger says is what the endpoint says, and nothing is paid for twice.
    """
    found = played[name].result()
    assert found.problems == []
    assert (found.lost, found.paid_twice, found.runs) == (0, 0, 240)


def test_looking_at_a_live_batch_does_not_disturb_it() -> None:
    """A dashboard may ask every second, and a person in between."""
    found = looked_at(total=150)
    assert found.problems == []
    assert (found.lost, found.paid_twice) == (0, 0)
