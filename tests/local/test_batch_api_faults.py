"""What goes wrong with the Batch API on purpose: lost answers, shifting pages, late starts, what nobody documented."""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest
from batch_calls import Batch, counts, done, draft, ok, requests, take
from serving import TOKEN, Client, sample, serving

from runner.local import fault_text
from runner.local.faults import Faults, Order


def day(*texts: str, seed: int = 0) -> Faults:
    """A bad day, as people write it."""
    return fault_text.faults(texts, seed=seed)


async def lost(client: Client, path: str, body: Any = None) -> None:
    """A call whose answer never comes."""
    with pytest.raises(aiohttp.ClientOSError):
        await client.call("POST", path, json=body)


async def test_a_create_whose_answer_is_lost_leaves_a_draft_to_be_found() -> None:
    """It can be seen in the list, and nowhere else."""
    async with serving(None, faults=day("batch-create:reset_after=1")) as client:
        await lost(client, "batch", requests([1]))
        assert [counts(one) for one in (await ok(client, "GET", "batch"))["batches"]] == [("DRAFT", 1, 0, 0, 0)]
        await draft(client)


async def test_an_append_whose_answer_is_lost_was_applied_all_the_same() -> None:
    """The count says so; whoever sends it again pays twice."""
    async with serving(None, faults=day("batch-append:reset_after=1")) as client:
        batch = await draft(client)
        await lost(client, f"batch/{batch.id}/requests", {"requests": requests("ab")})
        assert counts(await batch.get()) == ("DRAFT", 2, 0, 0, 0)
        await batch.append("c")
        assert counts(await batch.get()) == ("DRAFT", 3, 0, 0, 0)


async def test_an_append_that_was_reset_before_was_not_applied() -> None:
    """To its client it looks like one whose answer is lost."""
    async with serving(None, faults=day("batch-append:reset_before=1")) as client:
        batch = await draft(client)
        await lost(client, f"batch/{batch.id}/requests", {"requests": requests("ab")})
        assert counts(await batch.get()) == ("DRAFT", 0, 0, 0, 0)


async def test_a_finalize_whose_answer_is_lost_runs_the_batch_and_is_refused_the_second_time() -> None:
    """So nothing runs twice; the summary tells who asks."""
    async with serving(None, faults=day("batch-finalize:502_after=1")) as client:
        batch = await draft(client, "a")
        answer = await client.session.post(
            f"{client.server.base_url}/ep/batch/{batch.id}/finalize",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert answer.status == 502
        assert counts(await batch.get()) == ("FINALIZED", 1, 0, 0, 0)
        assert (await client.call("POST", f"batch/{batch.id}/finalize")).status == 409
        assert (await take(client))["input"] == "a"


async def test_a_batch_may_fail_as_a_whole() -> None:
    """When half of it has ended: what runs is drained, the rest is dropped. The next batch is fine."""
    async with serving(None, faults=day("batch_fails=1")) as client:
        batch = await draft(client, range(4))
        await batch.finalize()
        jobs = [await take(client) for _ in range(3)]
        await done(client, jobs[0]["id"], output=1)
        assert counts(await batch.get()) == ("FINALIZED", 4, 2, 1, 0)
        await done(client, jobs[1]["id"], output=1)
        assert counts(await batch.get()) == ("FINALIZED", 4, 1, 2, 0)
        await done(client, jobs[2]["id"], output=1)
        assert counts(await batch.get()) == ("FAILED", 4, 0, 3, 0)
        assert [one["status"] for one in await batch.all()] == ["COMPLETED"] * 3 + ["CANCELLED"]
        fine = await draft(client, "a")
        await fine.finalize()
        await done(client, (await take(client))["id"], output=1)
        assert counts(await fine.get()) == ("FINALIZED", 1, 0, 1, 0)


async def test_a_batch_may_start_late_and_be_cancelled_before() -> None:
    """Until then it is finalized, and all of it waits."""
    async with serving(sample("echo"), faults=day("batch_delay=300ms")) as client:
        batch, never = await draft(client, "ab"), await draft(client, "c")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await batch.finalize()
        assert counts(await batch.get()) == ("FINALIZED", 2, 0, 0, 0)
        await never.finalize()
        assert counts(await never.cancel()) == ("CANCELLED", 1, 0, 0, 0)
        assert counts(await batch.until_done()) == ("FINALIZED", 2, 0, 2, 0)
        assert loop.time() - began >= 0.3
        assert [one["status"] for one in await never.all()] == ["CANCELLED"]


async def test_ids_may_be_kept_from_who_appends() -> None:
    """For it is not documented that they are answered; the pages have them."""
    async with serving(None, faults=day("batch_ids=off")) as client:
        created = await ok(client, "POST", "batch", json=requests("a"))
        batch = Batch(client, created["id"])
        assert created == {"id": batch.id, "status": "DRAFT"}
        body = {"requests": requests("b")}
        assert await ok(client, "POST", f"batch/{batch.id}/requests", json=body) == created
        assert len(await batch.all()) == 2


async def test_answers_may_have_fields_that_nobody_knows() -> None:
    """A beta's do, from one day to the next."""
    async with serving(None, faults=day("batch_extra")) as client:
        batch = await draft(client, "a")
        extra = {"betaPriority": {"tier": None}, "betaTags": []}
        page = await batch.page()
        for shown in (await batch.get(), page, page["requests"][0]):
            assert shown.items() >= extra.items()


async def two_pages(order: Order, ends: Sequence[int], seed: int = 0) -> tuple[list[int], list[int]]:
    """
    The places of the requests on two pages of half a batch of eight each; *ends* names which have ended at the first
    page. Before the second, one more ends, the sixth. The fourth fails.
    """
    async with serving(None, faults=day(f"batch_order={order}", seed=seed)) as client:
        batch = await draft(client)
        ids = await batch.append(range(8))
        await batch.finalize()
        for _ in range(8):
            await take(client)

        async def end(place: int) -> None:
            await done(client, ids[place], **({"error": "x"} if place == 3 else {"output": place}))

        async def page(offset: int) -> list[int]:
            return [ids.index(one["id"]) for one in (await batch.page(f"?offset={offset}&limit=4"))["requests"]]

        for place in ends:
            await end(place)
        first = await page(0)
        await end(5)
        return first, await page(4)


@pytest.mark.parametrize(
    ("order", "first", "second"),
    [
        (Order.INPUTS, [0, 1, 2, 3], [4, 5, 6, 7]),
        (Order.FAILURES_FIRST, [3, 6, 1, 2], [5, 0, 4, 7]),
        (Order.NEWEST_FIRST, [2, 3, 1, 6], [6, 0, 4, 7]),
        (Order.UNFINISHED_FIRST, [0, 4, 5, 7], [1, 3, 2, 5]),
    ],
)
async def test_pages_shift_while_requests_end(order: Order, first: list[int], second: list[int]) -> None:
    """What was on the first page comes again on the second, or what was on neither is never seen."""
    assert await two_pages(order, [6, 1, 3, 2]) == (first, second)


async def test_results_may_come_in_any_order_and_the_seed_says_which() -> None:
    """Never to be matched by their place."""
    first, second = await two_pages(Order.SHUFFLED, [], seed=1)
    assert sorted(first + second) == list(range(8))
    assert first + second != list(range(8))
    assert await two_pages(Order.SHUFFLED, [], seed=1) == (first, second)
    assert await two_pages(Order.SHUFFLED, [], seed=2) != (first, second)


async def test_a_page_may_miss_one_even_when_nothing_ends_any_more() -> None:
    """The first of the page it is; who counts what was seen reads again, and finds it."""
    async with serving(None, faults=day("shifted_page=1/2")) as client:
        batch = await draft(client)
        ids = await batch.append(range(5))
        missing = await batch.page("?limit=3")
        assert [one["id"] for one in missing["requests"]] == ids[1:4]
        assert (missing["offset"], missing["hasMore"], missing["total"]) == (0, True, 5)
        assert [one["id"] for one in (await batch.page("?offset=3&limit=3"))["requests"]] == ids[3:]


async def test_a_bad_day_for_batches_is_the_same_for_the_same_seed() -> None:
    """Refusals by chance, drawn for each operation by itself."""

    async def statuses(seed: int) -> list[int]:
        async with serving(None, faults=day("batch-status:429=40%", "not_found=20%", seed=seed)) as client:
            batch_id = ""
            while not batch_id:
                batch_id = (await client.call("POST", "batch", json=[])).body.get("id", "")
            return [(await client.call("GET", f"batch/{batch_id}")).status for _ in range(60)]

    first = await statuses(5)
    assert set(first) == {200, 404, 429}
    assert await statuses(5) == first
    assert await statuses(6) != first


async def test_a_status_may_be_one_that_no_client_has_heard_of() -> None:
    """As a beta's may be."""
    async with serving(None, faults=day("batch-status:unknown_status=1,shown=EXPIRING")) as client:
        batch = await draft(client, "a")
        assert (await batch.get())["status"] == "EXPIRING"
        assert (await batch.get())["status"] == "DRAFT"
