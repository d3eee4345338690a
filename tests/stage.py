"""Batches that stand still where a test wants them to: handlers wait for a file, answers for a word."""

import http.client
import json
import os
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from terminal import Ran, Server, finish, lines, processes_with, serving, start, wait_until, write

from runner import report
from runner.batch import Folder
from runner.ledger import Ledger
from runner.local.accepted import input_hash
from runner.results import digest
from runner.values import parse

HANDLER = """
import os, time

def handler(job):
    given = job["input"]
    at = os.path.join(given["at"], str(given["n"]))
    open(f"{at}.began", "a").close()
    while not os.path.exists(f"{at}.go"):
        time.sleep(0.005)
    if os.path.exists(f"{at}.fail"):
        raise ValueError("no horse")
    return given["n"]
"""

RUNS = 6

JOB_FILE = """\
version: 1
name: NAME
endpoints:
  local: {handler: "handler.py:handler", workers: WORKERS}
jobs:
  job:
    endpoint: local
    rows: {file: rows.csv}
    concurrency: 2
    input: {n: "{{ row.n | int }}", at: "AT"}
"""


class Proxy:
    """
    Stands between a batch and the endpoint: an operation can be held, and how often each was asked for is counted.

    When the block ends it is gone: who comes then finds nobody at *url*. *port* 0 takes any free one.
    """

    def __init__(self, server: Server, *, port: int = 0) -> None:
        self.seen: Counter[str] = Counter()
        self._held: dict[str, threading.Event] = {}
        self._lost: set[str] = set()
        upstream = server.url.split("/")[2]
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                operation = self.path.split("?")[0].split("/")[3]
                proxy.seen[operation] += 1
                held = proxy._held.get(operation)
                if held is not None:
                    held.wait(60)
                    self.close_connection = True  # who waited may be gone: what it asked for is not done
                    return
                with suppress(OSError):
                    answer = self._ask(body)
                    if operation in proxy._lost:
                        self.close_connection = True
                        return
                    self.wfile.write(answer)

            do_POST = do_GET

            def _ask(self, body: bytes) -> bytes:
                connection = http.client.HTTPConnection(upstream, timeout=60)
                try:
                    kept = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                    connection.request(self.command, self.path, body, kept)
                    said = connection.getresponse()
                    data = said.read()
                finally:
                    connection.close()
                head = f"HTTP/1.1 {said.status} {said.reason}\r\nContent-Type: application/json\r\n"
                return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                """A client that was killed is no error."""

        self._listener = Listener(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}/v2"
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for held in self._held.values():
            held.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()

    def hold(self, *operations: str) -> None:
        """From now on leave these operations without an answer."""
        for operation in operations:
            self._held[operation] = threading.Event()

    def release(self) -> None:
        """Answer again; who still waits is cut off, and what it asked for is not done."""
        held, self._held = self._held, {}
        for event in held.values():
            event.set()

    def lose(self, *operations: str) -> None:
        """From now on do what these operations ask for, and cut the connection instead of an answer."""
        self._lost.update(operations)

    def find(self) -> None:
        """Lose nothing more."""
        self._lost.clear()

    def wait_for(self, operation: str, count: int = 1) -> None:
        """Wait until *operation* was asked for *count* times."""
        wait_until(lambda: self.seen[operation] >= count, f"{count} x {operation}")


@dataclass(frozen=True)
class Stage:
    """A job file of `RUNS` runs, two at a time, in a folder of its own. The handler of each waits until it may go."""

    folder: Path
    name: str
    server: Server | None = None
    url: str | None = None

    @classmethod
    def make(
        cls,
        folder: Path,
        server: Server | None = None,
        *,
        url: str | None = None,
        more: str = "",
        name: str = "one",
        workers: int = 2,
    ) -> "Stage":
        """
        Write the job file *name*, with *more* keys of its job, for the endpoint of *server* (reached at *url*), or an
        embedded one.
        """
        (folder / "at").mkdir(parents=True, exist_ok=True)
        text = JOB_FILE.replace("NAME", name).replace("AT", str(folder / "at")).replace("WORKERS", str(workers))
        rows = "n\n" + "".join(f"{n}\n" for n in range(RUNS))
        write(folder, {"handler.py": HANDLER, "rows.csv": rows, f"{name}.yaml": text + more})
        return cls(folder, name, server, url or (server.url if server else None))

    # The command

    @property
    def mark(self) -> str:
        """It is in the environment of every process of this stage."""
        return f"stage-{os.getpid()}-{self.folder}"

    @property
    def env(self) -> dict[str, str]:
        """What the command needs."""
        return {"STAGE_MARK": self.mark} | (self.server.env if self.server else {})

    def words(self, *words: str) -> list[str | Path]:
        """``run`` and *words*."""
        local = ["--local", self.url] if self.url else []
        return ["run", f"{self.name}.yaml", *local, *words]

    def start(self, *words: str, token: str | None = None) -> "subprocess.Popen[str]":
        """Start ``runner run``; with *token* instead of the right one."""
        other = {} if token is None else {"RUNNER_LOCAL_TOKEN": token}
        return _started(start(*self.words(*words), cwd=self.folder, env=self.env | other))

    def run(self, *words: str) -> Ran:
        """``runner run`` to its end."""
        return finish(self.start(*words))

    def runner_started(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Start another verb."""
        return _started(start(*words, cwd=self.folder, env=self.env))

    def runner(self, *words: str | Path) -> Ran:
        """Another verb, to its end."""
        return finish(self.runner_started(*words))

    def kill_in_the_middle(self, *words: str) -> None:
        """Run it until runs 0 and 1 are settled and 2 and 3 are with their handlers, and kill the runner."""
        self.go(0, 1)
        process = self.start(*words)
        self.wait_settled(2)
        self.wait_known(2, 3)
        kill(process)

    # The runs

    def go(self, *numbers: int) -> None:
        """Let these runs come to their end; all of them without numbers."""
        for n in numbers or range(RUNS):
            (self.folder / "at" / f"{n}.go").touch()

    def fail(self, *numbers: int) -> None:
        """Let these runs fail, once they may go."""
        for n in numbers:
            (self.folder / "at" / f"{n}.fail").touch()

    def mend(self) -> None:
        """Let no run fail, and none go any more."""
        for path in (self.folder / "at").iterdir():
            path.unlink()

    def wait_began(self, *numbers: int) -> None:
        """Wait until these runs are with their handlers."""
        for n in numbers:
            wait_until((self.folder / "at" / f"{n}.began").exists, f"run {n} to begin")

    def wait_known(self, *numbers: int) -> None:
        """Wait until these runs are with their handlers, and the ledger knows their jobs: a kill loses none of them."""
        self.wait_began(*numbers)

        def known() -> set[int]:
            with Ledger.read_only(self.batch.ledger) as ledger:
                return {one.run.index for one in ledger.open_runs() if one.job_id is not None and not one.ended}

        wait_until(lambda: known() >= set(numbers), f"the ids of the jobs of runs {numbers}")

    def wait_settled(self, count: int) -> None:
        """Wait until *count* lines are there."""
        wait_until(lambda: len(self.settled()) >= count, f"{count} settled runs")

    # What is there

    @property
    def batch(self) -> Folder:
        """The newest batch."""
        return Folder((self.folder / "batches" / self.name / "latest").resolve())

    def settled(self) -> list[dict[str, Any]]:
        """The lines of the newest batch that are there; a torn one is not."""
        path = self.folder / "batches" / self.name / "latest" / "results.jsonl"
        if not path.exists():
            return []
        return [json.loads(text) for text in path.read_bytes().splitlines(keepends=True) if text.endswith(b"\n")]

    def outcomes(self) -> dict[int, str | None]:
        """The outcome of each settled run."""
        return {one["index"]: one["outcome"] for one in self.settled()}

    def health(self) -> Any:
        """The object of health.json."""
        return parse(self.batch.health.read_bytes())

    def accepted(self) -> dict[int, list[str]]:
        """The ids of the jobs that the endpoint says it accepted for each run, in order."""
        assert self.server is not None
        numbers = {input_hash({"n": n, "at": str(self.folder / "at")}): n for n in range(RUNS)}
        found: dict[int, list[str]] = {}
        for event in self.server.events("accepted"):
            if event["input"] in numbers:
                found.setdefault(numbers[event["input"]], []).append(event["job_id"])
        return found

    def statuses(self) -> dict[int, list[str]]:
        """How the endpoint's API says that each run's jobs stand."""
        return {n: [self._status(job_id) for job_id in ids] for n, ids in sorted(self.accepted().items())}

    def _status(self, job_id: str) -> str:
        assert self.server is not None
        headers = {"Authorization": f"Bearer {self.server.token}"}
        request = urllib.request.Request(f"{self.server.url}/local/status/{job_id}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            status: str = json.loads(answer.read())["status"]
            return status

    # What must hold

    def check_sound(self, *, reported: bool = True) -> None:
        """
        The newest batch's files agree with each other and with the endpoint, whatever ended the process; *reported* is
        whether it still wrote its report.
        """
        batch = self.batch
        known = {".ledger.seal", "ledger.sqlite", "log.jsonl", "manifest.json", "results.jsonl"}
        known |= {"health.json", "report.html"} if reported else set()
        beside = {"ledger.sqlite-wal", "ledger.sqlite-shm"}  # whoever looks at a ledger leaves them
        assert {path.name for path in batch.path.iterdir()} - beside == known
        wait_until(lambda: not processes_with(self.mark), "every process of the batch to end")
        told = batch.results.read_bytes() if batch.results.exists() else b""
        assert not told or told.endswith(b"\n")
        found = {one["key"]: one for one in lines(batch.results)} if told else {}
        assert len(found) == told.count(b"\n")
        with Ledger.read_only(batch.ledger) as ledger:
            end = 0
            for offset, length in ledger.places():
                assert offset == end
                end += length
            assert end == len(told)
            for key in found:
                place = ledger.settled_line(key)
                assert place is not None
                line = told[place.offset : place.offset + place.length]
                assert (digest(line), json.loads(line)["key"]) == (place.digest, key)
            now = report.fold(ledger, report.told(ledger, batch))
        assert not reported or self.health() == now
        totals = now["batch"]
        assert totals["runs"] == RUNS == totals["pending"] + len(found)
        assert "Traceback" not in batch.log.read_text()
        if self.server is not None:
            accepted = self.accepted()
            for one in found.values():
                assert one["attempts"] == len(accepted.get(one["index"], [])), one

    def check_whole(self) -> None:
        """Every run is settled, once, and no file or process is left over."""
        self.check_sound()
        assert sorted(one["index"] for one in lines(self.batch.results)) == list(range(RUNS))


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill *process*: it can neither see it coming nor tidy up."""
    process.kill()
    finish(process)


_processes: "list[subprocess.Popen[str]]" = []


def _started(process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
    _processes.append(process)
    return process


@contextmanager
def staged_server(folder: Path, *, workers: int = 2) -> Iterator[Server]:
    """The endpoint of any stage, served by a process of its own; in the end no process of a failed test is left."""
    stage = Stage.make(folder, workers=workers)
    with serving(stage.folder / "one.yaml") as server:
        yield server
        while _processes:
            if (process := _processes.pop()).poll() is None:
                kill(process)


def said(process: "subprocess.Popen[str]", text: str) -> str:
    """Wait until *process* says *text* on stderr; all that it said until then."""
    assert process.stderr is not None
    heard = ""
    while text not in heard:
        line = process.stderr.readline()
        assert line, f"it ended, and never said {text!r}:\n{heard}"
        heard += line
    return heard


def pause(seconds: float) -> None:
    """Let time pass, where time itself is what is tested."""
    time.sleep(seconds)
