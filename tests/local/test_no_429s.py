"""RunPod's limits over real HTTP: the local endpoint enforces them exactly, on its own clock."""

import asyncio
import time

from serving import TOKEN, sample

from runner.clock import SystemClock
from runner.endpoint import LiveEndpoint
from runner.events import Destination
from runner.local.limits import Limit, RateLimits
from runner.local.server import LocalServer, Served
from runner.pace import BUCKETS, Pace
from runner.runpod import RunPod, open_session
from runner.secret import Secret
from runner.units import Rate


class Quick(SystemClock):
    """Ten seconds of it pass in one."""

    def monotonic(self) -> float:
        return 10 * time.monotonic()


async def test_a_client_at_the_full_rate_meets_no_429_over_http() -> None:
    """The server counts requests as they arrive, which is neither when they left nor as far apart."""
    limits = RateLimits({"run": Limit(60, 20), "status": Limit(60, 20)})
    rates = {bucket: Rate(60, 1.0) for bucket in BUCKETS.values()}
    async with (
        LocalServer([Served("ep", sample("echo"))], token=TOKEN, rate_limits=limits, clock=Quick()) as server,
        open_session() as session,
    ):
        client = RunPod(session, base_url=server.base_url, endpoint_id="ep", api_key=Secret(TOKEN, name="the token"))
        to = Destination("local", server.base_url, "ep")
        endpoint = LiveEndpoint(to, client, Pace(rates), SystemClock(), concurrency=50)
        at_once = asyncio.Semaphore(18)

        async def carry(number: int) -> None:
            async with at_once:
                job = await endpoint.call("run", lambda: client.run(b'{"input":{"n":%d}}' % number))
                await endpoint.call("status", lambda: client.status(job.job_id))

        began_at = time.monotonic()
        await asyncio.gather(*(carry(number) for number in range(200)))
        took_s = time.monotonic() - began_at
        assert server.refused == {"ep": {}}
        assert took_s >= 3.0, "four windows of 60"
