"""An unmodified worker on the `runpod` package, whose handlers do what their input says; argv[1] names its kind."""

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

import runpod


def plain(job):
    """A function; with `then`, it returns a coroutine, as an async one does."""
    asked = job["input"]
    return later(job, asked) if asked.get("then") else act(job, asked)


async def later(job, asked):
    await asyncio.sleep(0)
    if asked["then"] == "sleep":
        try:
            Path(asked["file"]).write_text(str(os.getpid()))
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            Path(asked["file"]).write_text("cancelled")
            raise
    if asked["then"] == "ignore":  # it is not to be stopped
        Path(asked["file"]).write_text(str(os.getpid()))
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(600)
    if asked["then"] == "until":
        while not Path(asked["file"]).exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
    if asked["then"] == "together":  # returns once so many of these run at the same time
        together.add(job["id"])
        while len(together) < asked["count"]:  # noqa: ASYNC110 - the simplest that shows it
            await asyncio.sleep(0.01)
    return act(job, asked)


together = set()


def act(job, asked):
    if "return" in asked:
        return asked["return"]
    if "raise" in asked:
        raise ValueError(asked["raise"])
    if "odd" in asked:
        return {"object": object(), "nan": [float("nan")], "whole job": job}[asked["odd"]]
    if "block" in asked:
        Path(asked["block"]).write_text(str(os.getpid()))
        time.sleep(600)
    if "progress" in asked:
        runpod.serverless.progress_update(job, asked["progress"])
        while not Path(asked["until"]).exists():
            time.sleep(0.01)
        return "over"
    return None


def yields(job):
    """A generator: yields what its input lists, then something that is no JSON, or raises, if it says so."""
    yield from job["input"]["yield"]
    if "odd" in job["input"]:
        yield object()
    if "raise" in job["input"]:
        raise ValueError(job["input"]["raise"])


async def async_yields(job):
    for value in yields(job):
        await asyncio.sleep(0)
        yield value


KINDS = {
    "plain": {"handler": plain, "concurrency_modifier": lambda current: 32},
    "stream": {"handler": yields},
    "aggregate": {"handler": async_yields, "return_aggregate_stream": True},
    "refresh": {"handler": plain, "refresh_worker": True},
}

if __name__ == "__main__":
    runpod.serverless.start(KINDS[sys.argv[1]])
