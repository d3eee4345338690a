"""What goes wrong with the service and on the way to it, while real processes run batches against a real endpoint."""

import gzip
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from aiohttp import web

from torture.cases import FEW, SLOW_MS, Case, Play
from torture.processes import wait_until
from torture.scene import lines
from torture.stand import Stand
from torture.weather import Asked, Front, Weather, front

HOW = "faults"

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
BIG_BYTES = 300 << 20
"""More than any answer may be."""

SUBMITS = ("run", "runsync")
LOOKS = ("status", "status-sync", "stream")


# By the endpoint's own faults


def bad_day(stand: Stand, faults: tuple[str, ...]) -> None:
    """A batch on a day with these faults, as the endpoint's log says they came."""
    assert isinstance(stand.served, Weather)
    stand.served.set(*faults, seed=stand.chance.randint(0, 9999))
    ran = stand.command(stand.words())
    stand.served.clear_up()
    came = sum(one["fault"] is not None for one in stand.asked())
    stand.account.tried += came
    if not came:
        stand.account.problems.append(f"none of {faults} came")
    stand.audit(ran)


DAYS: dict[str, tuple[str, ...]] = {
    "429": ("429=8/40",),
    "429 with Retry-After in seconds": ("429=5/60,retry_after=1s",),
    "429 with Retry-After as a date": ("429=5/60,retry_at=1s",),
    "500": ("500=8%",),
    "502, a page of HTML": ("502=8%",),
    "503": ("503=8%",),
    "504, a page of HTML": ("504=8%",),
    "answer lost, 500, 502, 503, 504 once the job was accepted": (
        "run:500_after=3",
        "runsync:502_after=2",
        "503_after=4%",
        "504_after=4%",
    ),
    "reset before the request was read": ("reset_before=8%",),
    "answer lost, reset once the job was accepted": ("run:reset_after=4", "runsync:reset_after=2", "reset_after=5%"),
    "body truncated": ("cut=10%",),
    "slow body": ("slow=10%,over=600ms",),
    "200 with a page of HTML": ("run:html=3", "runsync:html=2", "status-sync:html=2"),
    "JSON called text/html": ("wrong_type=20%",),
    "status word that nobody knows": ("unknown_status=25%",),
    "stream chunks repeated": ("duplicate_chunk=40%",),
    "stream chunks missing": ("lost_chunk=40%",),
    "404 just after the submit": ("not_found=1500ms",),
}
"""Faults of the local endpoint, by name."""


LOSING = ("5", "answer lost", "reset", "body truncated", "200 with")
"""How those begin by which answers to submits are lost, so that what a job file says of that matters."""


def slow_answer(stand: Stand) -> None:
    """The job is accepted, and the answer to the submit comes later than is waited for."""
    _with_request_limit(stand, "1s")
    with front(stand.served.url) as way:
        way.delay_s = lambda asked: 3.0 if asked.operation in SUBMITS and asked.number in (1, 4) else 0.0
        _run_by(stand, way)


def paused(stand: Stand) -> None:
    """Scaled to zero: 409 to submits, for a while."""
    assert isinstance(stand.served, Weather)
    stand.served.set("run:paused=1", "runsync:paused=1")
    ran = stand.command(stand.words())
    stand.account.tried += sum(one["fault"] == "paused" for one in stand.asked())
    stand.audit(ran)


def purged(stand: Stand) -> None:
    """Somebody else purges the queue: queued jobs are gone, and called lost."""
    assert isinstance(stand.served, Weather)
    process = stand.start(stand.words())
    stand.wait_events(process, stand.scene.total // 2)
    stand.account.tried += stand.served.purge()
    stand.audit(stand.finish(process), may_end={"lost"})


# By a front that spoils answers


def _run_by(stand: Stand, way: Front, **allowed: Any) -> None:
    """The batch, by this way, to its end."""
    ran = stand.command(["run", stand.scene.job_file, "--local", way.url])
    stand.account.tried += way.spoilt
    if not way.spoilt:
        stand.account.problems.append("the fault never came")
    stand.audit(ran, **allowed)


def _with_request_limit(stand: Stand, limit: str) -> None:
    text = stand.scene.job_file.read_text()
    more = f"    timeouts: {{request: {limit}}}\n    on_answer_lost"
    stand.scene.job_file.write_text(text.replace("    on_answer_lost", more))


def _page(status: int) -> web.Response:
    return web.Response(
        status=status, text=f"<html><body>error {status}<hr>cloudflare</body></html>", content_type="text/html"
    )


def edge_pages(stand: Stand) -> None:
    """Pages of the edge, 520 to 526, to one request in twelve."""
    with front(stand.served.url) as way:
        way.instead = lambda asked: _page(520 + asked.of_all % 7) if asked.of_all % 12 == 3 else None
        _run_by(stand, way)


def moved(stand: Stand) -> None:
    """Redirects, which are not followed."""
    with front(stand.served.url) as way:
        way.instead = lambda asked: (
            web.Response(status=302, headers={"Location": "/elsewhere"}) if asked.of_all % 15 == 4 else None
        )
        _run_by(stand, way)


def refused_half_way(stand: Stand, answer: Callable[[], web.Response]) -> None:
    """From some moment on nothing but *answer* comes: exit 4; once that is over a resume goes on."""
    with front(stand.served.url) as way:
        is_bad = False

        def instead(_: Asked) -> web.Response | None:
            return answer() if is_bad else None

        way.instead = instead
        words: list[Any] = ["run", stand.scene.job_file, "--local", way.url]
        process = stand.start(words)
        stand.wait_events(process, stand.scene.total)
        is_bad = True
        ran = stand.finish(process)
        if ran.code != 4:
            stand.account.problems.append(f"after {answer().status} it ended with {ran}")
        is_bad = False
        stand.account.tried += way.spoilt
        stand.audit(stand.command([*words, "--resume"] if stand.unfinished else ["resume", stand.scene.name]))


def forbidden_once(stand: Stand) -> None:
    """403 to single submits, as a firewall answers to one body."""
    with front(stand.served.url) as way:
        way.instead = lambda asked: _page(403) if asked.operation == "run" and asked.number in (2, 9) else None
        _run_by(stand, way, may_end={"rejected"})


def _each_job_once(change: Callable[[Any], Any]) -> Callable[[Asked, Any], Any]:
    """Change the first answer that says of a job that it is over."""
    met: set[Any] = set()

    def alter(asked: Asked, value: Any) -> Any:
        job = value.get("id") if isinstance(value, dict) else None
        status = value.get("status") if isinstance(value, dict) else None
        if asked.operation not in ("status", "status-sync") or job in met or status not in FINAL:
            return value
        met.add(job)
        return change(value)

    return alter


def backwards(stand: Stand) -> None:
    """A job that is over is shown queued once more, and one that runs, too."""
    with front(stand.served.url) as way:
        way.alter = _each_job_once(lambda value: {"id": value["id"], "status": "IN_QUEUE"})
        _run_by(stand, way)


def to_queue(stand: Stand) -> None:
    """IN_PROGRESS back to IN_QUEUE."""
    with front(stand.served.url) as way:
        seen: set[str] = set()

        def alter(_: Asked, value: Any) -> Any:
            if value.get("status") != "IN_PROGRESS":
                return value
            job = value.get("id", "")
            seen.add(job)
            return value | {"status": "IN_QUEUE"} if job in seen else value

        way.alter = alter
        stand.account.tried += 1  # whether a look meets a running job is up to the machine
        ran = stand.command(["run", stand.scene.job_file, "--local", way.url])
        stand.account.tried += way.spoilt
        stand.audit(ran)


def without_output(stand: Stand) -> None:
    """COMPLETED, and no output: an outcome of its own."""
    with front(stand.served.url) as way:

        def alter(asked: Asked, value: Any) -> Any:
            if value.get("status") != "COMPLETED" or asked.operation not in ("status", "status-sync", "runsync"):
                return value
            return (
                {name: one for name, one in value.items() if name != "output"} if value["id"][-4] in "0123" else value
            )

        way.alter = alter
        _run_by(stand, way, may_end={"completed_without_output", "check_failed"})


def error_in_output(stand: Stand) -> None:
    """COMPLETED with an output that says error: success_when sees it, and the run is tried again."""
    with front(stand.served.url) as way:
        changed = _each_job_once(lambda value: value | {"output": {"error": "CUDA out of memory"}})
        count = 0

        def alter(asked: Asked, value: Any) -> Any:
            nonlocal count
            found = value if not isinstance(value.get("output"), dict) or count >= 5 else changed(asked, value)
            count += found != value
            return found

        way.alter = alter
        _run_by(stand, way)


def _bomb() -> web.Response:
    packed = gzip.compress(b" " * BIG_BYTES, 1)
    return web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


def bomb(stand: Stand) -> None:
    """A small gzipped answer that unpacks to more than is taken: too_large."""
    packed = _bomb()
    with front(stand.served.url) as way:
        way.alter = _once_final(lambda: packed)
        _run_by(stand, way, may_end={"too_large"})


def huge(stand: Stand) -> None:
    """An answer of 500 MB: too_large, before it is read."""
    with front(stand.served.url) as way:
        way.alter = _once_final(lambda: web.Response(body=b" " * (500 << 20), content_type="application/json"))
        _run_by(stand, way, may_end={"too_large"})


def _once_final(make: Callable[[], web.Response]) -> Callable[[Asked, Any], Any]:
    is_done = False

    def alter(asked: Asked, value: Any) -> Any:
        nonlocal is_done
        if is_done or asked.operation not in ("status", "status-sync") or value.get("status") != "COMPLETED":
            return value
        is_done = True
        return make()

    return alter


# The way itself


def no_way(stand: Stand, url: Callable[[ExitStack, Stand], str]) -> None:
    """Nobody is reached: nothing counts as sent. It is interrupted, and goes on by the right way."""
    with ExitStack() as stack:
        process = stand.start(["run", stand.scene.job_file, "--local", url(stack, stand), "--drain", "15s"])
        wait_until(lambda: process.poll() is not None or stand.scene.batches(), "the ledger")
        log = "log.jsonl"
        wait_until(lambda: process.poll() is not None or len(lines(stand.scene.batch.path / log)) >= 4, "two failures")
        process.send_signal(signal.SIGTERM)
        ran = stand.finish(process)
    if ran.code != 143:
        stand.account.problems.append(f"without a way it ended with {ran}")
    stand.account.tried += sum("no connection" in json.dumps(one) for one in lines(stand.scene.batch.path / log))
    if not stand.account.tried:
        stand.account.problems.append("it never said that nobody was reached")
    stand.end()
    if stand.account.answer_lost:
        stand.account.problems.append(f"{stand.account.answer_lost} runs that were never sent count as answer_lost")


def _no_name(_: ExitStack, __: Stand) -> str:
    return "https://no-such-host.invalid/v2"


def _nobody(_: ExitStack, __: Stand) -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}/v2"


def _no_tls(_: ExitStack, stand: Stand) -> str:
    return stand.served.url.replace("http://", "https://")


def _no_answer(stack: ExitStack, _: Stand) -> str:
    """Somebody listens, whose queue of connections is full: no new one is ever made."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _number in range(4):
        caller = stack.enter_context(socket.socket())
        caller.setblocking(False)
        caller.connect_ex(listener.getsockname())
    time.sleep(0.1)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v2"


WAYS = {
    "DNS failure": _no_name,
    "connection refused": _nobody,
    "TLS error": _no_tls,
    "connect timeout": _no_answer,
}


def proxied(stand: Stand) -> None:
    """The environment names a proxy that is not there, for all schemes: a local endpoint is asked without it."""
    nobody = _nobody(ExitStack(), stand)[: -len("/v2")]
    stand.env |= dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), nobody)
    stand.audit(stand.command(stand.words()))


NETWORK = ("reset", "body", "slow", "200 with", "answer lost, reset")
"""How the names of faults begin that are the network's."""


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for name, texts in DAYS.items():
        where = "network" if name.startswith(NETWORK) else "service"
        how = partial(bad_day, faults=texts)
        for lost in ("fail", "resubmit") if name.startswith(LOSING) else ("fail",):
            yield Case(f"{name}, {lost}", name, where, HOW, how, has_weather=True, lost=lost, runs=FEW, ms=15, width=8)

    def one(name: str, where: str, how: Play, *, ms: int = 15, width: int = 8) -> Case:
        return Case(name, name, where, HOW, how, has_weather=True, runs=FEW, ms=ms, width=width)

    yield one("answer lost, later than is waited for", "network", slow_answer)
    yield one("scaled to zero for a while (409)", "service", paused)
    yield one("queue purged by somebody else", "service", purged, ms=SLOW_MS, width=20)
    yield one("520 to 526, pages of the edge", "service", edge_pages)
    yield one("redirects", "service", moved)
    for name, status in (("key rotated half way (401)", 401), ("out of credit half way (402)", 402)):
        how = partial(refused_half_way, answer=partial(web.json_response, {"error": "no"}, status=status))
        yield one(name, "service", how, ms=60)
    gone = partial(web.json_response, {"detail": "endpoint not found"}, status=404)
    yield one("endpoint deleted half way (404)", "service", partial(refused_half_way, answer=gone), ms=60)
    yield one("403 to single submits", "service", forbidden_once)
    yield one("status going backwards", "service", backwards)
    yield one("IN_PROGRESS back to IN_QUEUE", "service", to_queue, ms=SLOW_MS)
    yield one("COMPLETED without output", "service", without_output)
    yield one("output that says error", "service", error_in_output)
    yield one("gzip bomb", "network", bomb)
    yield one("500 MB body", "network", huge)
    for name, url in WAYS.items():
        yield one(name, "network", partial(no_way, url=url))
    yield one("proxy of the environment", "network", proxied)
