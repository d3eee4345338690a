"""The bars that are more than one batch: a long one, starting up, and going on after a kill."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from os import environ
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.durations import bimodal
from benchmarks.options import Options
from benchmarks.stage import KEY_VARIABLE, RUNNER, Ran, Stage, Work
from benchmarks.verdicts import Check, Measured

FEW, MANY = 5_000, 200_000
SETTLED = 100_000
BEGUN, UNDER_WAY = 11_000, 1000
PATIENCE_S = 120.0

HEALTH = b'HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n{"jobs":{"inProgress":1000},"workers":{"a":1}}'


def at_scale(stage: Stage, _rounds: int) -> Measured:
    """200,000 tiny runs, beside 5,000 of them."""
    few, many = Work(Options(), FEW, hears=False), Work(Options(), MANY, hears=False)
    small, large = stage.ran("runner", few), stage.ran("runner", many)
    plain = stage.ran("plain aiohttp", many)
    if small.lost or large.lost:
        raise RuntimeError("runs were lost without a reason")
    values = {
        Check(f"peak memory at {MANY:,}", 90, "MB"): [large.cost.peak_bytes / 1e6],
        Check(f"peak memory, of that at {FEW:,}", 1.1, "×"): [large.cost.peak_bytes / small.cost.peak_bytes],
        Check("jobs per CPU second, of plain aiohttp's", 0.6, "×", at_least=True): [plain.cpu_ms / large.cpu_ms],
    }
    return Measured(values, [small, large, plain])


def on_start(stage: Stage, rounds: int) -> Measured:
    """What a shell and cron feel."""
    shown, checked, asked = Check("--help", 0.25, "s"), Check("validate", 0.35, "s"), Check("first request", 0.6, "s")
    values: dict[Check, list[float]] = {shown: [], checked: [], asked: []}
    work, ran = Work(Options(), 1), list[Ran]()
    for _ in range(rounds + 2):
        values[shown].append(stage.run([RUNNER, "--help"]).seconds)
        file = stage.job_file("http://127.0.0.1:9/v2", work)
        values[checked].append(stage.run([RUNNER, "validate", file]).seconds)
        ran.append(stage.ran("runner", work))
        first = ran[-1].seen.first_request
        assert first is not None
        values[asked].append(first - ran[-1].cost.began)
    return Measured(values, ran)


def resumed(stage: Stage, rounds: int) -> Measured:
    """A batch that was killed, and one that is done."""
    followed = Check(f"first follow, {BEGUN - UNDER_WAY:,} settled and {UNDER_WAY:,} in flight", 0.5, "s")
    nothing = Check(f"no-op resume of {SETTLED:,}", 2.0, "s")
    values: dict[Check, list[float]] = {followed: [], nothing: []}
    with stage.batches() as batches, killed(stage, batches) as (command, port):
        for _ in range(rounds):
            values[followed].append(first_follow_s(command, port))
    work = Work(Options(), SETTLED, hears=False)
    with stage.batches() as batches:
        with stage.serve(work.options) as server:
            file = stage.job_file(server.base_url, work)
            stage.run([RUNNER, "run", file, "--quiet", "--output-dir", batches], **{KEY_VARIABLE: "key"})
        [folder] = batches.glob("bench/2*")
        for _ in range(rounds):
            values[nothing].append(stage.run([RUNNER, "resume", folder], **{KEY_VARIABLE: "key"}).seconds)
    return Measured(values, [])


@contextmanager
def killed(stage: Stage, batches: Path) -> Iterator[tuple[list[str], int]]:
    """A batch that was killed in the middle: the command that goes on with it, and the port that it will ask at."""
    slow = bimodal(0.002, 3600.0, UNDER_WAY / BEGUN)
    work = Work(Options(workers=5000, durations=slow), BEGUN, in_flight=2 * UNDER_WAY)
    with stage.serve(work.options) as server:
        file = stage.job_file(server.base_url, work)
        command = [*stage.pinned, str(RUNNER), "run", str(file), "--quiet", "--output-dir", str(batches), "--resume"]
        with subprocess.Popen(command, env=environ | {KEY_VARIABLE: "key"}) as running:
            settled = before = -1
            while settled < 0.9 * (BEGUN - UNDER_WAY) or settled != before:
                time.sleep(2.0)
                assert running.poll() is None, "the batch ended early"
                before, settled = settled, sum(_lines(one) for one in batches.glob("bench/2*/results.jsonl"))
            running.kill()
        port = urlsplit(server.base_url).port
        assert port is not None
    yield command, port


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def first_follow_s(command: list[str], port: int) -> float:
    """Seconds from the start of *command* until it asks at *port* how a job stands; then it is killed."""
    asked = threading.Event()

    def hear(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # whoever asks is killed as soon as it was heard
            while data := connection.recv(65536):
                if b"/status" in data:
                    asked.set()
                elif b"/health" in data:
                    connection.sendall(HEALTH)

    def listen(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # it was closed
                return
            threading.Thread(target=hear, args=(connection,), daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", port), backlog=1024)) as listening:
        threading.Thread(target=listen, args=(listening,), daemon=True).start()
        began = time.monotonic()
        with subprocess.Popen(command, env=environ | {KEY_VARIABLE: "key"}) as running:
            if not asked.wait(PATIENCE_S):
                raise RuntimeError("a resumed batch asked for no job")
            seconds = time.monotonic() - began
            running.kill()
        listening.shutdown(socket.SHUT_RDWR)
    return seconds
