"""
Our own small worker: take a job, call the handler, post what it did, for ever.

    python -P -m runner.local.worker [--aggregate | --no-aggregate] PATH.py:function

It speaks RunPod's worker protocol and finds the server through the real worker's environment variables, so it and an
unmodified `runpod` worker are the same to a server. Standard library only, and as little of it as possible: it starts
in the time of two bare interpreters. Handlers are plain or async functions, generators or async generators.

Source: runpod 1.12.0 worker code. It never drops a job silently; see `runner.local.results`.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from runner.local import handlers, results

if TYPE_CHECKING:
    import asyncio

_ATTEMPTS = 3
_TIMEOUT_S = 90.0


def main(argv: list[str]) -> int:
    """Serve jobs until the server is gone; returns the exit code."""
    aggregate = "--no-aggregate" not in argv
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    channel = Channel(dict(os.environ))
    try:
        handler = handlers.load(argv[-1])
    except handlers.CantImport as error:
        channel.report_broken(error)
        return 1
    return _serve(channel, Work(handler, channel, aggregate=aggregate))


def _serve(channel: "Channel", work: "Work") -> int:
    while True:
        try:
            job = channel.take()
            if job is not None:
                work.do(job)
        except (OSError, HTTPException) as error:  # ours only: what a handler raises does not come this far
            print(f"the server is gone: {error}", file=sys.stderr)
            return 1


class Channel:
    """The way to the server: one connection, kept alive, opened again when the server had closed it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._worker_id = environment["RUNPOD_POD_ID"]
        self._headers = {"Authorization": environment["RUNPOD_AI_API_KEY"], "Content-Type": "application/json"}
        # In this one $ID is the worker; in the others it is the job.
        self._take = environment["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", self._worker_id)
        self._done = environment["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", self._worker_id)
        self._stream = environment["RUNPOD_WEBHOOK_POST_STREAM"].replace("$RUNPOD_POD_ID", self._worker_id)
        self._ping = environment["RUNPOD_WEBHOOK_PING"].replace("$RUNPOD_POD_ID", self._worker_id)
        self._connection = HTTPConnection(urlsplit(self._take).netloc, timeout=_TIMEOUT_S)

    def take(self) -> dict[str, Any] | None:
        """The next job, None if the server had none for a while."""
        status, body = self._request("GET", f"{self._take}&job_in_progress=0")
        if status == 200 and body:
            job: dict[str, Any] = json.loads(body)
            return job
        if status != 204:
            time.sleep(1.0)  # refused: nothing else would keep this from spinning
        return None

    def done(self, job_id: str, body: bytes, *, is_stream: bool) -> None:
        """Post the result of a job."""
        flag = "true" if is_stream else "false"
        self._post(f"{self._done.replace('$ID', job_id)}&isStream={flag}", body, "result")

    def chunk(self, job_id: str, body: bytes) -> None:
        """Post one partial output."""
        self._post(f"{self._stream.replace('$ID', job_id)}&isStream=false", body, "partial output")

    def report_broken(self, error: handlers.CantImport) -> None:
        """Tell the server that the handler can't be imported: the real worker's ping, with more in the body."""
        url = f"{self._ping}&status=unhealthy&check=import&reason={quote(error.message[:256])}"
        report = {"message": error.message, "place": error.place, "fix": error.fix}
        self._post(url, json.dumps(report).encode(), "report")

    def _post(self, url: str, body: bytes, what: str) -> None:
        status, _ = self._request("POST", url, body)
        if status >= 300:
            print(f"the server refused a {what} of {len(body)} bytes: HTTP {status}", file=sys.stderr)

    def _request(self, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        """
        Send and read one answer, trying again on a new connection if the old one fails.

        A post may so arrive twice: a result that comes again is ignored, a partial output is not (RunPod's clients
        have seen that, too).
        """
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._connection.request(method, target, body, self._headers)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, HTTPException):
                self._connection.close()
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(0.05 * (attempt - 1))
        raise AssertionError("unreachable")


class Work:
    """Call the handler for one job after the other, and post what it does."""

    def __init__(self, handler: handlers.Handler, channel: Channel, *, aggregate: bool) -> None:
        self._handler = handler
        self._channel = channel
        self._aggregate = aggregate
        self._pid = os.getpid()
        self._runner: asyncio.Runner | None = None

    def do(self, job: dict[str, Any]) -> None:
        """Carry out one job. Whatever the handler raises is the job's result, not ours."""
        job_id = job["id"]
        body, is_stream = self._called(job)
        try:
            data = results.encoded(body)
        except ValueError as error:
            print(f"job {job_id}: {error}", file=sys.stderr)
            data = results.encoded({"error": str(error)})
        self._channel.done(job_id, data, is_stream=is_stream)

    def _called(self, job: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        try:
            value = self._handler(job)
            if hasattr(value, "__await__"):
                value = self._run(_awaited(value))
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit included
            self._leave_if_forked()
            return results.of_exception(error), False
        self._leave_if_forked()
        if hasattr(value, "__anext__"):
            return self._streamed(job["id"], self._drawn(value)), True
        if hasattr(value, "__next__"):
            return self._streamed(job["id"], value), True
        return results.of_value(value), False

    def _streamed(self, job_id: str, yields: Iterator[Any]) -> dict[str, Any]:
        """Post each yield as it comes; the body for the end."""
        kept: list[Any] = []
        try:
            for value in yields:
                self._leave_if_forked()
                if isinstance(value, dict) and value.get("error"):
                    return {"error": str(value["error"])}
                self._channel.chunk(job_id, results.encoded({"output": value}))
                if self._aggregate:
                    kept.append(value)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, SystemExit included
            self._leave_if_forked()
            return results.of_broken_stream(error)
        return {"output": kept}

    def _drawn(self, yields: Any) -> Iterator[Any]:
        """The values of an async generator, which runs only while we wait for the next."""
        end = object()
        while (value := self._run(_next(yields, end))) is not end:
            yield value

    def _run(self, coroutine: Any) -> Any:
        if self._runner is None:
            import asyncio  # 40 ms that plain handlers can save

            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    def _leave_if_forked(self) -> None:
        """End a child that the handler forked and let return: the job is its parent's to answer."""
        if os.getpid() != self._pid:
            os._exit(0)


async def _awaited(value: Any) -> Any:
    return await value


async def _next(yields: Any, end: object) -> Any:
    return await anext(yields, end)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
