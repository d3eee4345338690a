"""``runner purge``: what waits is dropped, and only when somebody means it."""

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_http import RawServer, Reply, Then, answer
from forked import popen
from terminal import DEADLINE_S, Ran, Server, environment, finish, runner, serving, wait_until, write

HANDLER = """\
import time

def handler(job):
    time.sleep(job["input"]["seconds"])
    return "done"
"""
FILE = """\
version: 1
name: slow
endpoints:
  local: {{handler: "slow.py:handler"}}
  sdxl: {{id: abc, api_key: "${{SDXL_KEY}}", base_url: {url}}}
  other: {{id: "${{OTHER_ID}}", api_key: "${{OTHER_KEY}}"}}
jobs:
  first: {{endpoint: local, input: {{seconds: 1}}}}
  second: {{endpoint: sdxl, input: {{seconds: 1}}}}
  third: {{endpoint: other, input: {{seconds: 1}}}}
"""
NOWHERE = "http://127.0.0.1:9/v2"
KEY = {"SDXL_KEY": "rpa_PLANTED0KEY"}


def folder_for(path: Path, url: str = NOWHERE) -> Path:
    """A folder with a job file whose remote endpoint is at *url*."""
    write(path, {"slow.yaml": FILE.format(url=url), "slow.py": HANDLER})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_for(tmp_path)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """A served endpoint with one worker, where one job runs and two wait."""
    with serving(folder / "slow.yaml") as served:
        for _ in range(3):
            call(served, "run", {"input": {"seconds": 60}})
        wait_until(lambda: counters(served) == (2, 1), "one job to run")
        yield served


def call(server: Server, operation: str, body: object = None) -> dict[str, dict[str, int]]:
    """Call the endpoint as any other client would."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/local/{operation}", data)
    request.add_header("Authorization", f"Bearer {server.token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as said:
        answered: dict[str, dict[str, int]] = json.load(said)
        return answered


def counters(server: Server) -> tuple[int, int]:
    """How many jobs wait, and how many run."""
    jobs = call(server, "health")["jobs"]
    return jobs["inQueue"], jobs["inProgress"]


def purge(folder: Path, server: Server, *words: str) -> Ran:
    return runner("purge", "slow.yaml", "local", "--local", server.url, *words, cwd=folder, env=server.env)


class Person:
    """Somebody at a terminal, at which ``runner purge`` was typed. Its stdout goes to a pipe."""

    def __init__(self, folder: Path, server: Server, *words: str) -> None:
        self._terminal, theirs = pty.openpty()
        words = ("purge", "slow.yaml", "local", "--local", server.url, *words)
        self.process = popen(
            [sys.executable, "-m", "runner", *words],
            cwd=folder,
            env=environment(server.env),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)

    def reads_until(self, end: str) -> str:
        """What stands on the terminal up to *end*."""
        said = ""
        give_up = time.monotonic() + DEADLINE_S
        while not said.endswith(end):
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, give_up - time.monotonic()))
            assert ready, f"nothing came after {said!r}"
            try:
                said += os.read(self._terminal, 4096).decode()
            except OSError:  # the other side is gone
                break
        return said.replace("\r\n", "\n")

    def types(self, text: str) -> Ran:
        """Answer, and wait for the end."""
        os.write(self._terminal, text.encode())
        ran = finish(self.process)
        err = self.reads_until("\0")
        os.close(self._terminal)
        return Ran(ran.code, ran.out, err)


ASKED = (
    "endpoint 'local' (id local): 2 jobs wait, 1 runs; purging drops the waiting ones, whoever sent them\npurge? [y/N] "
)


def test_what_waits_is_dropped_and_what_runs_goes_on(folder: Path, server: Server) -> None:
    """Somebody pays for what runs."""
    ran = purge(folder, server, "--yes")
    assert (ran.code, ran.out, ran.err) == (0, "local: 2 jobs dropped\n", "")
    assert counters(server) == (0, 1)
    ran = purge(folder, server, "--yes", "--format", "json")
    assert (ran.code, ran.json, ran.err) == (0, {"endpoint": "local", "removed": 0}, "")


def test_without_a_terminal_nobody_can_be_asked(folder: Path, server: Server) -> None:
    """A cron job that purges must have been told to."""
    ran = purge(folder, server)
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "error: purging drops every queued job of endpoint 'local', other clients' too, and there is no terminal to ask"
        " on\n  help: add --yes to do it unasked\n",
    )
    assert counters(server) == (2, 1)


@pytest.mark.parametrize("typed", ["y\n", "YES\n"], ids=["y", "YES"])
def test_on_a_terminal_a_person_sees_what_there_is_and_says_yes(folder: Path, server: Server, typed: str) -> None:
    """Other people's jobs may be among them. The question is no part of what a program reads."""
    person = Person(folder, server, "--format", "json")
    assert person.reads_until("[y/N] ") == ASKED
    ran = person.types(typed)
    assert (ran.code, ran.json) == (0, {"endpoint": "local", "removed": 2})
    assert counters(server) == (0, 1)


@pytest.mark.parametrize("typed", ["\n", "yesterday\n", "\x04"], ids=["nothing", "something", "Ctrl-D"])
def test_whatever_is_no_yes_purges_nothing(folder: Path, server: Server, typed: str) -> None:
    """The default is the harmless one."""
    person = Person(folder, server)
    assert person.reads_until("[y/N] ") == ASKED
    ran = person.types(typed)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("nothing was purged\n")
    assert counters(server) == (2, 1)


def test_ctrl_c_at_the_question_purges_nothing(folder: Path, server: Server) -> None:
    """At once, not after Enter."""
    person = Person(folder, server)
    person.reads_until("[y/N] ")
    os.killpg(person.process.pid, 2)
    assert finish(person.process).code == 130
    assert counters(server) == (2, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sdlx"], "error: unknown endpoint 'sdlx' in slow.yaml\n  help: did you mean 'sdxl'?\n"),
        (
            ["local"],
            "error: endpoint 'local' is embedded: it lives only while a batch runs, and so does its queue\n"
            "  help: to purge one that 'runner serve' serves, give --local URL\n",
        ),
        (
            ["sdxl", "--local", NOWHERE],
            "error: --local is for embedded endpoints, and 'sdxl' is on RunPod\n  help: leave --local out\n",
        ),
        (
            ["sdxl"],
            "error: environment variable 'SDXL_KEY' is not set\n"
            "  help: export SDXL_KEY=…, or write ${SDXL_KEY:-default}\n",
        ),
        (["sdxl", "--format", "xml"], "error: --format is text or json, found 'xml'\n  help: write --format json\n"),
    ],
    ids=["unknown", "embedded", "not local", "no key", "no format"],
)
def test_a_mistaken_call_exits_2_with_its_fix(folder: Path, words: list[str], message: str) -> None:
    """Nothing was purged, and nobody was asked."""
    ran = runner("purge", "slow.yaml", *words, "--yes", cwd=folder)
    assert (ran.code, ran.out, ran.err) == (2, "", message)


async def purge_at(reply: Reply, tmp_path: Path, *words: str) -> tuple[Ran, list[str]]:
    """What comes of purging an endpoint that answers so, and what it was asked."""
    async with RawServer(reply) as server:
        folder_for(tmp_path, server.url + "/v2")
        ran = await asyncio.to_thread(runner, "purge", "slow.yaml", "sdxl", "--yes", *words, cwd=tmp_path, env=KEY)
    assert KEY["SDXL_KEY"] not in ran.err
    return ran, [request.head.splitlines()[0] for request in server.requests]


PURGE = "POST /v2/abc/purge-queue HTTP/1.1"
CALL = "POST /purge-queue of endpoint 'abc'"


async def test_only_the_named_endpoint_is_needed(tmp_path: Path) -> None:
    """The variables of others may not be set here."""
    ran, asked = await purge_at(Reply(answer(b'{"removed": 1, "status": "completed"}')), tmp_path)
    assert (ran.code, ran.out, ran.err) == (0, "sdxl: 1 job dropped\n", "")
    assert asked == [PURGE]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "sdxl: the queue was dropped; RunPod did not say how many jobs that were\n"),
        (["--format", "json"], '{"endpoint":"sdxl","removed":null}\n'),
    ],
    ids=["text", "json"],
)
async def test_a_missing_count_is_said(tmp_path: Path, words: list[str], said: str) -> None:
    """It is not 0."""
    ran, _ = await purge_at(Reply(answer(b"{}")), tmp_path, *words)
    assert (ran.code, ran.out, ran.err) == (0, said, "")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(then=Then.CLOSE), f"{CALL}: the connection was closed before an answer came"),
        (Reply(answer(b"busy", status="502 Bad Gateway")), f"{CALL}: HTTP 502: busy"),
        (Reply(answer(b"<html>")), f"{CALL}: HTTP 200 with an answer that is not JSON: <html>"),
    ],
    ids=["closed", "502", "unreadable"],
)
async def test_a_lost_answer_may_have_dropped_the_queue(tmp_path: Path, reply: Reply, reason: str) -> None:
    """It is asked once, and what is not known is said so."""
    ran, asked = await purge_at(reply, tmp_path)
    assert (ran.code, ran.out, ran.err) == (
        1,
        "",
        f"error: {reason}; the queue of endpoint 'sdxl' may have been dropped\n"
        "  help: see with 'runner health' what waits there\n",
    )
    assert asked == [PURGE]


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        ("401 Unauthorized", "check the endpoint's 'api_key': RunPod's console lists the valid ones"),
        ("403 Forbidden", "check that the endpoint's 'api_key' may use this endpoint"),
        ("404 Not Found", "check the endpoint's 'id', and that its 'api_key' may do this"),
    ],
)
async def test_an_endpoint_that_refuses_exits_4(tmp_path: Path, status: str, fix: str) -> None:
    """As every command does."""
    ran, _ = await purge_at(Reply(answer(b"", status=status)), tmp_path)
    assert (ran.code, ran.out, ran.err) == (
        4,
        "",
        f"error: endpoint 'sdxl' refused: {CALL}: HTTP {status[:3]}\n  help: {fix}\n",
    )


@pytest.mark.parametrize("status", ["429 Too Many", "400 Bad Request"])
async def test_a_no_purges_nothing(tmp_path: Path, status: str) -> None:
    """And a person may try again."""
    ran, asked = await purge_at(Reply(answer(b"not now", status=status)), tmp_path)
    assert (ran.code, ran.out, ran.err) == (
        1,
        "",
        f"error: {CALL}: HTTP {status[:3]}: not now; nothing was purged\n  help: try again in a while\n",
    )
    assert asked == [PURGE]
