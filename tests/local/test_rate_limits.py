import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import eventually, serving

from runner.local.limits import DOCUMENTED, WINDOW_S, Limit, Meter, RateLimits


def meter(requests: int, concurrent: int | None = None) -> Meter:
    """A meter with one limit, that of /cancel."""
    return Meter(RateLimits({"cancel": Limit(requests, concurrent)}))


def test_the_documented_table_is_kept() -> None:
    """RunPod's numbers, in requests per 10 s and requests at once."""
    assert dict(DOCUMENTED) == {
        "run": Limit(1000, 200),
        "runsync": Limit(2000, 400),
        "status": Limit(2000, 400),
        "cancel": Limit(100, 20),
        "purge-queue": Limit(2, None),
    }


@given(gaps=st.lists(st.floats(min_value=0, max_value=6), max_size=60))
def test_no_window_of_ten_seconds_ever_holds_more_than_the_limit(gaps: list[float]) -> None:
    """Exactly: not a bucket that refills, nor windows that start on the clock."""
    limited, now, went = meter(3), 0.0, list[float]()
    for gap in gaps:
        now += gap
        inside = [at for at in went if at > now - WINDOW_S]
        wait_s = limited.admit("cancel", now)
        if len(inside) < 3:
            assert wait_s is None
            went.append(now)
            limited.leave("cancel")
        else:
            assert wait_s == pytest.approx(inside[0] + WINDOW_S - now)


def test_what_is_refused_counts_against_nothing_and_is_counted_by_operation() -> None:
    """Or a client that insists would never get in again."""
    limited = meter(1)
    assert limited.admit("cancel", 0.0) is None
    assert [limited.admit("cancel", 5.0), limited.admit("cancel", 9.0)] == [5.0, 1.0]
    assert limited.admit("cancel", 10.0) is None
    assert dict(limited.refused) == {"cancel": 2}


def test_only_so_many_are_open_at_once() -> None:
    """Long polls are what fills it."""
    limited = meter(100, concurrent=2)
    assert [limited.admit("cancel", 0.0) for _ in range(3)] == [None, None, 0.0]
    limited.leave("cancel")
    assert limited.admit("cancel", 0.0) is None


def test_looks_share_a_limit_and_some_operations_have_none() -> None:
    """/status, /status-sync and /stream count together; health and retry are not limited."""
    limited = Meter(RateLimits({"status": Limit(2)}))
    assert [limited.admit(name, 0.0) for name in ("status", "status-sync", "stream")] == [None, None, 10.0]
    assert all(limited.admit("health", 0.0) is None and limited.admit("retry", 0.0) is None for _ in range(9))
    assert dict(limited.refused) == {"stream": 1}


async def test_a_refused_submit_is_a_429_and_queues_nothing() -> None:
    """It is the one refusal after which a client may send again without a doubt."""
    limits = RateLimits({"run": Limit(2), "purge-queue": Limit(1)})
    async with serving(None, rate_limits=limits) as client:
        for _ in range(2):
            await client.run()
        answer = await client.call("POST", "run", json={"input": 1})
        assert (answer.status, answer.body) == (429, {"error": "rate limit exceeded: too many requests to /run"})
        assert "Retry-After" not in answer.headers
        assert (await client.call("POST", "purge-queue")).body["removed"] == 2
        assert (await client.call("POST", "purge-queue")).status == 429
        assert client.server.refused == {"ep": {"run": 1, "purge-queue": 1}}


async def test_a_refusal_can_say_when_to_come_again() -> None:
    """RunPod's job API is not known to; its management API does."""
    async with serving(None, rate_limits=RateLimits({"run": Limit(1)}, retry_after=True)) as client:
        await client.run()
        answer = await client.call("POST", "run", json={"input": 1})
        assert (answer.status, answer.headers["Retry-After"]) == (429, "10")


async def test_held_requests_count_as_open_until_they_are_answered() -> None:
    """Also when the client hangs up: or a few broken clients would lock all others out."""
    async with serving(None, rate_limits=RateLimits({"status": Limit(100, concurrent=1)})) as client:
        job_id = await client.run()
        held = asyncio.ensure_future(client.call("GET", f"stream/{job_id}"))

        async def is_full() -> bool:
            return (await client.call("GET", f"status/{job_id}")).status == 429

        await eventually(is_full)
        held.cancel()

        async def is_free() -> bool:
            return (await client.call("GET", f"status/{job_id}")).status == 200

        await eventually(is_free)


async def test_without_the_option_nothing_is_refused() -> None:
    """A local batch may go as fast as it can."""
    async with serving(None) as client:
        for _ in range(4):
            assert (await client.call("POST", "purge-queue")).status == 200
        assert client.server.refused == {"ep": {}}
