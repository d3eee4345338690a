"""Jobs in mode batch, against the local endpoint's Batch API: what users get of it, on good days and on bad ones."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_days import Day, day, the_same

from runner.answers import is_id
from runner.batch_answers import Counts
from runner.errors import EXIT_REFUSED, EndpointRefused, Refused
from runner.execute import execute
from runner.live import Live
from runner.options import Options
from runner.runpod_batches import RunPodBatches
from runner.states import Verdict

Monkey = pytest.MonkeyPatch


async def test_every_mode_gives_the_same_results(tmp_path: Path, monkeypatch: Monkey) -> None:
    """So changing `mode` is all that a user does: checks, retries, failures and artifacts are no other."""
    told = {}
    async with day(tmp_path, monkeypatch, workers=2) as here:
        for mode in ("batch", "async", "sync", "stream"):
            tries = f"{tmp_path}/{mode}-{{{{ matrix.n }}}}"
            path = here.write(
                "9",
                mode=mode,
                input={"n": "{{ matrix.n }}", "fails": "{{ [0, 1, 9][matrix.n % 3] }}", "tries": tries},
                retry={"attempts": 2, "outcomes": ["failed"], "wait_initial": "10ms"},
                success_when="output.n != 6",
                artifacts=[{"path": "{{ run.index }}.txt", "json": "{{ output }}"}],
            )
            batch = await here.run(path)
            assert batch.verdict is Verdict.FAIL
            told[mode] = the_same(here.lines())
            for line in told[mode]:
                line["input"].pop("tries")
                line.pop("key")  # the inputs differ by their file
                if line["error"] and line["error"]["traceback"]:
                    line["error"]["traceback"] = "some"
    outcomes = [*(["completed", "completed", "failed"] * 2), "check_failed", "completed", "failed"]
    assert [line["outcome"] for line in told["batch"]] == outcomes
    assert [line["attempts"] for line in told["batch"]] == [1, 2, 2] * 3
    for mode in ("async", "sync", "stream"):
        assert told[mode] == told["batch"], mode


async def test_a_line_has_the_id_and_the_times_of_its_request(tmp_path: Path, monkeypatch: Monkey) -> None:
    """As in any other mode, so that reports, budgets and `runner show` know them."""
    async with day(tmp_path, monkeypatch) as here:
        batch = await here.run(here.write("3"))
        accepted = {one["job_id"] for one in here.events("accepted")}
        assert {line["job_id"] for line in here.lines()} == accepted
        assert all(line["execution_time_ms"] >= 0 and line["delay_time_ms"] >= 0 for line in here.lines())
        assert batch.health["jobs"]["a"]["cost_usd"] is not None
        asked = here.asked()
        assert (asked["batch-create"], asked["batch-append"], asked["batch-finalize"]) == (1, 1, 1)
        assert asked["run"] == asked["status"] == 0


DAYS = {
    "creates": ("batch-create:reset_after=1", "batch-update:reset_after=1", "batch_extra", "batch_order=shuffled"),
    "appends": ("batch-create:reset_before=1", "batch-append:reset_after=1", "batch-cancel:reset_after=1"),
    "answers": ("batch-append:502_after=1", "batch-finalize:reset_after=1", "batch_order=newest_first"),
    "requests": ("batch-append:reset_before=1", "batch-finalize:reset_before=1", "batch_order=unfinished_first"),
    "looks": ("batch-finalize:502_after=1", "batch-status:502=2", "batch-requests:502=2", "batch_delay=200ms"),
    "pages": (
        "batch-requests:shifted_page=50%",
        "batch-requests:reset_after=2",
        "batch_order=failures_first",
        "429=5%",
    ),
}


@pytest.mark.parametrize("faults", DAYS.values(), ids=DAYS)
async def test_a_bad_day_costs_nothing_twice(faults: Sequence[str], tmp_path: Path, monkeypatch: Monkey) -> None:
    """Whatever answer is lost: each run is settled once, and the endpoint was committed to run each once."""
    async with day(tmp_path, monkeypatch, *faults, workers=2) as here:
        batch = await here.run(here.write("12"))
        assert batch.verdict is Verdict.PASS
        assert [line["output"]["n"] for line in here.lines()] == list(range(12))
        assert sorted(here.paid().values()) == [1] * 12
        with here.ledger() as ledger:
            assert (ledger.open_drafts(), ledger.open_runs()) == ([], [])


# Whose a result is


async def test_without_ids_a_key_that_the_handler_echoes_tells_whose_a_result_is(
    tmp_path: Path, monkeypatch: Monkey
) -> None:
    """It is tried on ten runs; what fails has no output, and is known by what is left."""
    async with day(tmp_path, monkeypatch, "batch_ids=off", "batch_order=shuffled", workers=2) as here:
        given = {"n": "{{ matrix.n }}", "fails": "{{ 9 if matrix.n in (3, 17) else 0 }}", "tries": f"{tmp_path}/t"}
        given["tries"] += "{{ matrix.n }}"
        path = here.write("25", batch_key="key", input=given)
        batch = await here.run(path)
        assert batch.verdict is Verdict.FAIL
        assert [line["index"] for line in here.lines(outcome="failed")] == [3, 17]
        assert [line["error"]["message"] for line in here.lines(outcome="failed")] == ["no 3", "no 17"]
        assert [line["output"]["n"] for line in here.lines(outcome="completed")] == [
            *range(3),
            *range(4, 17),
            *range(18, 25),
        ]
        assert all(is_id(line["job_id"]) for line in here.lines())
        assert all("key" not in line["input"] for line in here.lines())
        assert len(here.paid()) == 25
        assert here.asked()["batch-finalize"] == 2


async def test_a_key_does_not_change_which_run_is_which(tmp_path: Path, monkeypatch: Monkey) -> None:
    """Keys are of the input as the file has it: results are found again, whatever the mode."""
    async with day(tmp_path, monkeypatch) as here:
        await here.run(here.write("2", batch_key="key"))
        keys = [line["key"] for line in here.lines()]
        await here.run(here.write("2", mode="async"), fresh=True)
        assert [line["key"] for line in here.lines()] == keys


async def test_several_failures_that_differ_are_said_not_to_be_told_apart(tmp_path: Path, monkeypatch: Monkey) -> None:
    """No error is put down to a run by guessing; that all of these failed is sure."""
    async with day(tmp_path, monkeypatch, "batch_ids=off") as here:
        given = {
            "n": "{{ matrix.n }}",
            "fails": "{{ 9 if matrix.n < 2 else 0 }}",
            "tries": f"{tmp_path}/t{{{{ matrix.n }}}}",
        }
        await here.run(here.write("4", batch_key="key", input=given))
        told = [line["error"]["message"] for line in here.lines(outcome="failed")]
        assert [line["index"] for line in here.lines(outcome="failed")] == [0, 1]
        assert [line["job_id"] for line in here.lines(outcome="failed")] == [None, None]
        assert told[0] == told[1]
        assert told[0].startswith("one of 2 requests that failed, and nobody can say which how: ")
        assert "no 0" in told[0]
        assert "no 1" in told[0]


async def test_without_ids_and_without_a_key_nothing_is_run(tmp_path: Path, monkeypatch: Monkey) -> None:
    """It is found out while it costs nothing; the draft is given back, and the message says what to write."""
    async with day(tmp_path, monkeypatch, "batch_ids=off") as here:
        with pytest.raises(EndpointRefused) as refused:
            await here.run(here.write("4"))
        assert refused.value.exit_code == EXIT_REFUSED
        assert refused.value.message == (
            "endpoint 'local' gives no ids for the requests of a batch, so no result could be told whose it is;"
            " nothing was run"
        )
        assert "batch_key: NAME" in (refused.value.fix or "")
        assert here.paid() == {}
        assert here.asked()["batch-cancel"] == 1
        assert here.lines() == []
        batch = await here.run(here.write("4", batch_key="key"), resume=True)
        assert batch.verdict is Verdict.PASS


async def test_a_handler_that_echoes_nothing_is_found_out_with_ten_runs(tmp_path: Path, monkeypatch: Monkey) -> None:
    """These were paid for, and are lost; the others stay pending."""
    async with day(tmp_path, monkeypatch, "batch_ids=off", handler="mute") as here:
        with pytest.raises(EndpointRefused) as refused:
            await here.run(here.write("40", batch_key="key"))
        assert refused.value.message.endswith(
            "was completed, and its output does not give 'key' back, so no result could be told whose it is"
        )
        assert len(here.paid()) == 10
        assert [line["outcome"] for line in here.lines()] == ["lost"] * 10


# Batches that end otherwise


async def test_what_never_ran_in_a_batch_that_failed_is_tried_again(tmp_path: Path, monkeypatch: Monkey) -> None:
    """It was not executed, so it is crashed, which `retry` may name; what did run has its own result."""
    async with day(tmp_path, monkeypatch, "batch_fails=1") as here:
        path = here.write("8", retry={"attempts": 2, "outcomes": ["crashed"], "wait_initial": "10ms"})
        batch = await here.run(path)
        assert batch.verdict is Verdict.PASS
        again = here.lines(attempts=2)
        assert 0 < len(again) <= 4
        assert [line["output"]["n"] for line in here.lines()] == list(range(8))


async def test_without_a_retry_it_says_that_it_was_not_executed(tmp_path: Path, monkeypatch: Monkey) -> None:
    """The outcome is a failure, and the reason is said."""
    async with day(tmp_path, monkeypatch, "batch_fails=1", "batch_ids=off") as here:
        await here.run(here.write("8", batch_key="key"))
        crashed = here.lines(outcome="crashed")
        assert 0 < len(crashed) <= 4
        assert all("failed before it ran; it was not executed" in line["error"]["message"] for line in crashed)


# Ending early


def blocked(here: Day, runs: int = 6, **job: Any) -> tuple[Path, Path]:
    """A job file whose handlers wait, the first after the first two runs, until the second file is gone."""
    block = here.folder / "block"
    block.touch()
    given = {"n": "{{ matrix.n }}", "block": f"{{{{ '{block}' if matrix.n >= 2 else '/none' }}}}"}
    return here.write(str(runs), input=given, **job), block


async def until(holds: Callable[[], object]) -> None:
    """Look again and again until it *holds*."""
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited 20 s")


async def test_an_interrupt_leaves_what_was_finalized_to_a_resume(tmp_path: Path, monkeypatch: Monkey) -> None:
    """As in the other modes: nothing is cancelled, and nothing paid for again."""
    async with day(tmp_path, monkeypatch) as here:
        path, block = blocked(here)
        async with asyncio.TaskGroup() as group:
            watched: asyncio.Future[Live] = asyncio.get_running_loop().create_future()
            running = group.create_task(here.run(path, watch=watched.set_result))
            live = await watched
            await until(lambda: live.tally.settled >= 2)
            live.drain(0.1)
            assert (await running).verdict is Verdict.INTERRUPTED
        block.unlink()
        batch = await here.run(path, resume=True)
        assert batch.verdict is Verdict.PASS
        assert sorted(here.paid().values()) == [1] * 6
        assert here.asked()["batch-cancel"] == 0


@pytest.mark.parametrize("ids", ["on", "off"])
async def test_a_cancel_drops_what_is_queued_and_follows_what_runs(
    ids: str, tmp_path: Path, monkeypatch: Monkey
) -> None:
    """What ran to its end keeps its result; what never ran is cancelled, and cost nothing."""
    async with day(tmp_path, monkeypatch, f"batch_ids={ids}") as here:
        path, block = blocked(here, batch_key="key")
        async with asyncio.TaskGroup() as group:
            watched: asyncio.Future[Live] = asyncio.get_running_loop().create_future()
            running = group.create_task(here.run(path, watch=watched.set_result))
            live = await watched
            await until(lambda: live.tally.settled >= 2)
            live.abandon()
            await until(lambda: here.asked()["batch-cancel"])
            block.unlink()
            assert (await running).verdict is Verdict.STOPPED
        assert [line["state"] for line in here.lines()] == ["succeeded"] * 3 + ["cancelled"] * 3
        assert {line["error"]["message"] for line in here.lines(state="cancelled")} == {"cancelled by us"}
        assert [one["status"] for one in here.events("done")].count("CANCELLED") == 3


async def test_timeouts_run_is_of_the_whole_runpod_batch(tmp_path: Path, monkeypatch: Monkey) -> None:
    """One request can't be cancelled: the batch is, and what did not end in time has timed out."""
    async with day(tmp_path, monkeypatch) as here:
        path, block = blocked(here, timeouts={"run": "1s"})
        async with asyncio.TaskGroup() as group:
            running = group.create_task(here.run(path))
            await until(lambda: here.asked()["batch-cancel"])
            block.unlink()
            await running
        assert [line["outcome"] for line in here.lines()] == ["completed"] * 3 + ["timed_out"] * 3
        told = here.lines(outcome="timed_out")[0]["error"]["message"]
        assert told == "timeouts.run passed, and its RunPod batch was cancelled"


# How much at once


async def test_concurrency_bounds_the_requests_that_are_open(tmp_path: Path, monkeypatch: Monkey) -> None:
    """Drafts are no larger than that, and the next one waits until there is room for half of it."""
    async with day(tmp_path, monkeypatch) as here:
        batch = await here.run(here.write("10", concurrency=4))
        assert batch.verdict is Verdict.PASS
        assert here.asked()["batch-finalize"] >= 3


async def test_a_budget_bounds_what_is_finalized(tmp_path: Path, monkeypatch: Monkey) -> None:
    """Until something has ended each run may cost all its time, so a draft takes no more than the budget bears."""
    async with day(tmp_path, monkeypatch) as here:
        path = here.write("10", stop_when={"cost": "0.35 USD"}, policy={"execution_timeout": "10s"})
        batch = await here.run(path)
        assert batch.verdict is Verdict.PASS
        drafts = here.asked()["batch-finalize"]
        assert drafts >= 2
        with here.ledger() as ledger:
            first = ledger.database.first("SELECT count(*) FROM drafted WHERE draft = 1")[0]
        assert first == 2


async def test_jobs_that_feed_each_other_flow_in_drafts(tmp_path: Path, monkeypatch: Monkey) -> None:
    """A draft is closed when no more rows come for a while; what settles wakes the next job."""
    monkeypatch.setattr("runner.intake.IDLE_S", 0.1)
    fast = {"endpoint": "local", "mode": "batch", "poll": {"min": "50ms", "max": "100ms"}}
    async with day(tmp_path, monkeypatch) as here:
        path = here.write_jobs(
            {
                "a": fast | {"rows": {"matrix": {"n": [1, 2, 3]}}, "input": {"n": "{{ matrix.n }}"}},
                "b": fast | {"rows": {"job": "a"}, "input": {"n": "{{ row.output.n * 10 }}"}},
            }
        )
        batch = await here.run(path)
        assert batch.verdict is Verdict.PASS
        assert sorted(line["output"]["n"] for line in here.lines(job="b")) == [10, 20, 30]


async def test_what_an_earlier_batch_knows_is_reused(tmp_path: Path, monkeypatch: Monkey) -> None:
    """It takes no place in a draft, and the key of a batch changes nothing about it."""
    async with day(tmp_path, monkeypatch) as here:
        await execute(Options(here.write("3", reuse="succeeded")))
        batch = await execute(Options(here.write("4", reuse="succeeded", batch_key="key")))
        assert batch.verdict is Verdict.PASS
        assert [line["attempts"] for line in here.lines()] == [0, 0, 0, 1]


# Resumes by other modes


@pytest.mark.parametrize(("first", "then"), [("batch", "async"), ("async", "batch")])
async def test_a_mode_may_change_between_two_resumes(
    first: str, then: str, tmp_path: Path, monkeypatch: Monkey
) -> None:
    """What RunPod has is followed the way it was sent; what was never sent goes the new way."""
    async with day(tmp_path, monkeypatch) as here:
        path, block = blocked(here, 12, mode=first, concurrency=4)
        async with asyncio.TaskGroup() as group:
            watched: asyncio.Future[Live] = asyncio.get_running_loop().create_future()
            running = group.create_task(here.run(path, watch=watched.set_result))
            live = await watched
            await until(lambda: live.tally.settled >= 2)
            live.drain(0.1)
            assert (await running).verdict is Verdict.INTERRUPTED
        path, block = blocked(here, 12, mode=then, concurrency=4)
        block.unlink()
        batch = await here.run(path, resume=True)
        assert batch.verdict is Verdict.PASS
        assert sorted(here.paid().values()) == [1] * 12
        assert {one["operation"] for one in here.events("accepted")} == {"batch", "run"}


async def test_what_is_refused_alone_takes_no_other_with_it(tmp_path: Path, monkeypatch: Monkey) -> None:
    """The call is halved until the request is found that RunPod will not have; its run is rejected."""
    append = RunPodBatches.append

    async def picky(self: RunPodBatches, batch_id: str, bodies: Sequence[bytes]) -> list[str]:
        if any(b'"n":5' in body for body in bodies):
            raise Refused("POST /batch: HTTP 400", status=400, detail="no fives")
        return await append(self, batch_id, bodies)

    monkeypatch.setattr(RunPodBatches, "append", picky)
    async with day(tmp_path, monkeypatch) as here:
        await here.run(here.write("8"))
        (rejected,) = here.lines(outcome="rejected")
        assert (rejected["index"], rejected["job_id"], rejected["attempts"]) == (5, None, 0)
        assert rejected["error"]["message"] == "POST /batch: HTTP 400: no fives"
        assert sorted(here.paid().values()) == [1] * 7
        assert here.asked()["batch-finalize"] == 1


async def test_a_draft_that_is_not_what_we_made_is_never_finalized(tmp_path: Path, monkeypatch: Monkey) -> None:
    """Somebody else's request in it would be paid for, too. After some of them the job is refused."""
    counts = RunPodBatches.counts

    async def odd(self: RunPodBatches, batch_id: str) -> Counts:
        return replace(await counts(self, batch_id), total=99)

    monkeypatch.setattr(RunPodBatches, "counts", odd)
    monkeypatch.setattr("runner.carrier.MOST_DOUBTS", 2)
    async with day(tmp_path, monkeypatch) as here:
        with pytest.raises(EndpointRefused) as refused:
            await here.run(here.write("3"))
        assert refused.value.message == (
            "endpoint 'local': 2 drafts in a row had to be dropped, the last one:"
            " RunPod counts 99 requests in a draft of 3"
        )
        assert (here.paid(), here.asked()["batch-cancel"]) == ({}, 2)
        monkeypatch.setattr(RunPodBatches, "counts", counts)
        assert (await here.run(here.write("3"), resume=True)).verdict is Verdict.PASS
