"""/health over HTTP, at every instant: against the statuses of all jobs, and against the workers that there are."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from serving import Client, sample, serving


class Story:
    """An endpoint whose workers are this test, and what its counters must be."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.key = client.server.variables("ep", "w")["RUNPOD_AI_API_KEY"]
        self.jobs: list[str] = []
        self.held: dict[str, list[str]] = {"w1": [], "w2": []}
        self.sums: Counter[str] = Counter(completed=0, failed=0, retried=0)
        self.lost: Counter[str] = Counter()

    async def step(self, chance: random.Random) -> None:
        """One thing that happens to an endpoint."""
        worker, job_id = chance.choice(["w1", "w2"]), chance.choice(self.jobs) if self.jobs else ""
        what = chance.choice(
            ["run", "run", "run", "take", "take", "take", "done", "fail", "cancel", "retry", "lose", "purge"]
        )
        if what == "run":
            self.jobs.append(await self.client.run(chance.random(), lowPriority=chance.random() < 0.3))
        elif what == "take" and (await self.client.health("jobs"))["inQueue"]:
            taken = await self.client.call("GET", f"job-take/{worker}?job_in_progress=1", token=self.key)
            self.held[worker].append(taken.body["id"])
        elif what in ("done", "fail") and self.held[worker]:
            job_id = self.held[worker].pop()
            body = {"output": 1} if what == "done" else {"error": 1}
            await self.client.call("POST", f"job-done/{worker}/{job_id}?x", token=self.key, json=body)
            self.sums["completed" if what == "done" else "failed"] += 1
        elif what == "cancel" and job_id:
            await self.client.call("POST", f"cancel/{job_id}")
            self.held = {name: [one for one in jobs if one != job_id] for name, jobs in self.held.items()}
        elif what == "retry" and job_id:
            is_queued = (await self.client.call("POST", f"retry/{job_id}")).status == 200
            self.sums["retried"] += is_queued
            if is_queued:
                self.lost[job_id] = 0
        elif what == "lose" and self.held[worker]:
            for named in (",".join(self.held[worker]), ""):  # what a worker had, and has no more, it lost
                await self.client.call("GET", f"ping/{worker}?job_id={named}", token=self.key)
            for one in self.held[worker]:
                self.sums["failed" if self.lost[one] else "retried"] += 1
                self.lost[one] += 1
            self.held[worker] = []
        elif what == "purge" and chance.random() < 0.3:
            await self.client.call("POST", "purge-queue")

    async def check(self) -> None:
        """The counters, beside what is known of every job."""
        answers = [await self.client.call("GET", f"status/{job_id}") for job_id in self.jobs]
        states = Counter(answer.body["status"] for answer in answers if answer.status == 200)
        expected = {"inProgress": states["IN_PROGRESS"], "inQueue": states["IN_QUEUE"], **self.sums}
        assert await self.client.health("jobs") == expected
        assert states["IN_PROGRESS"] == sum(map(len, self.held.values()))
        assert (await self.client.health("workers"))["running"] == sum(map(bool, self.held.values()))


@pytest.mark.parametrize("seed", range(3))
async def test_the_counters_are_those_of_the_jobs_after_whatever_happens(seed: int) -> None:
    """Submits, takes, results, cancels, retries, lost workers, purges, in any order."""
    chance = random.Random(seed)
    async with serving(None) as client:
        story = Story(client)
        for _ in range(60):
            await story.step(chance)
            await story.check()


async def test_every_worker_is_counted_once_also_while_it_is_ended(tmp_path: Path) -> None:
    """One that gives way to the next is neither idle nor lost: a client would wait for it, or miss it."""
    async with serving(sample("gate"), workers=2, grace_s=0.3) as client:
        seen = set()
        for number in range(4):
            job_id = await client.run(str(tmp_path / "never"))
            await client.until_status(job_id, "IN_PROGRESS")
            counts = await client.health("workers")
            assert counts["running"] == 1
            await client.call("POST", f"cancel/{job_id}")
            for _ in range(20):
                counts = await client.health("workers")
                assert sum(counts[name] for name in ("idle", "initializing", "running", "unhealthy")) == 2, number
                assert counts["ready"] == counts["idle"]
                seen.add(counts["initializing"])
                await asyncio.sleep(0.01)
        assert 1 in seen
