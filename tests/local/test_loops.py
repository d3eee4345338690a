"""The local endpoint on uvloop, as the commands run it where that is installed."""

import asyncio

import pytest
from serving import sample, serving

from runner import runtime


def test_an_endpoint_with_workers_serves_on_uvloop_and_ends() -> None:
    """Its transports are none of asyncio's classes, and its workers' processes are its own."""
    pytest.importorskip("uvloop")

    async def serve() -> tuple[str, str]:
        async with serving(sample("echo")) as one:
            return (await one.result(7))["status"], type(asyncio.get_running_loop()).__module__

    status, loop = runtime.run(serve())
    assert (status, loop.split(".")[0]) == ("COMPLETED", "uvloop")
