"""A batch on a terminal that is typed at, or closed; and what it does where nobody listens to it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte
import pytest
from stage import Proxy, Stage, pause, said, staged_server
from terminal import DEADLINE_S, Server, environment, finish, processes_with, wait_until

from runner.errors import EXIT_INTERRUPTED, EXIT_TERMINATED

AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "runner", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An endpoint that outlives every runner."""
    with staged_server(tmp_path_factory.mktemp("served"), workers=4) as found:
        yield found


class Terminal:
    """A terminal with ``runner`` in its foreground: what it shows, what is typed, and its window's being closed."""

    def __init__(self, stage: Stage, *words: str) -> None:
        self.shown = b""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, *map(str, stage.words(*words))],
            cwd=stage.folder,
            env=environment({"TERM": "xterm"} | stage.env),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._is_closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._is_closed.is_set():
            if select.select([self._ours], [], [], 0.02)[0]:
                try:
                    self.shown += os.read(self._ours, 65536)
                except OSError:  # the other side is gone
                    return

    def type(self, keys: bytes) -> None:
        """Press these keys."""
        os.write(self._ours, keys)

    def wait_for(self, text: str) -> None:
        """Wait until *text* is on the screen."""
        wait_until(lambda: any(text in line for line in self.screen()), f"{text!r} on the screen")

    def screen(self) -> list[str]:
        """The lines that a person sees, however they were drawn; a size of 0 by 0 is taken for 80 by 24."""
        emulator = pyte.Screen(100, 60)
        pyte.ByteStream(emulator).feed(self.shown)
        return [line.rstrip() for line in emulator.display]

    def close(self) -> None:
        """Close the window."""
        if not self._is_closed.is_set():
            self._is_closed.set()
            self._reader.join()
            os.close(self._ours)


@contextmanager
def terminal(stage: Stage, *words: str) -> Iterator[Terminal]:
    """``runner run`` and *words* at a terminal."""
    found = Terminal(stage, *words)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()
        found.close()


def in_the_middle(stage: Stage, at: Terminal) -> None:
    """Bring the batch to where runs 0 and 1 are settled, and 2 and 3 with their handlers."""
    stage.go(0, 1)
    stage.wait_settled(2)
    stage.wait_began(2, 3)


def test_a_closed_terminal_leaves_what_runs_to_a_resume(tmp_path: Path, server: Server) -> None:
    """Who closes a laptop wants neither to lose a batch nor to pay for it twice; and nobody is left to complain to."""
    stage = Stage.make(tmp_path, server)
    with terminal(stage, "--drain", "500ms") as at:
        in_the_middle(stage, at)
        at.close()
        assert at.process.wait(DEADLINE_S) == EXIT_TERMINATED
    stage.check_sound()
    assert stage.health()["verdict"] == "interrupted"
    assert stage.statuses() == {0: ["COMPLETED"], 1: ["COMPLETED"], 2: ["IN_PROGRESS"], 3: ["IN_PROGRESS"]}
    stage.go()
    assert stage.run("--resume").code == 0
    stage.check_whole()


def test_ctrl_c_reaches_no_worker_and_stays_to_be_read(tmp_path: Path) -> None:
    """A terminal sends it to everything in the foreground; a worker that took it would fail the run it has."""
    stage = Stage.make(tmp_path)
    with terminal(stage, "--drain", "60s") as at:
        in_the_middle(stage, at)
        at.wait_for("in flight")
        at.type(b"\x03")
        at.wait_for("  Ctrl-C again cancels them at RunPod; a resume goes on with them otherwise")
        shown = len(at.shown)
        wait_until(lambda: at.shown.count(b"\x1b[J", shown) > 2, "the table to be drawn a few times")
        stage.go(2, 3)
        assert at.process.wait(DEADLINE_S) == EXIT_INTERRUPTED
        wait_until(lambda: not processes_with(stage.mark), "every worker to end")
        at.wait_for("  go on with --resume")
        screen = at.screen()
    stage.check_sound()
    assert stage.outcomes() == dict.fromkeys(range(4), "completed")
    assert [re.sub(r"\d{8}T\d{6}Z-....", "ID", line).removeprefix("^C") for line in screen[:5]] == [
        "running one ID: 6 runs",
        "SIGINT: starting nothing more; following 2 in flight for 60s",
        "  Ctrl-C again cancels them at RunPod; a resume goes on with them otherwise",
        "interrupted: one ID",
        "  2 of 6 runs pending",
    ]
    stage.go()
    assert stage.run("--resume").code == 0
    stage.check_whole()


def test_leaving_at_once_leaves_the_terminal_fit_for_a_shell(tmp_path: Path, server: Server) -> None:
    """The shell goes on in that terminal."""
    with Proxy(server) as proxy:
        stage = Stage.make(tmp_path, server, url=proxy.url)
        proxy.hold("cancel")
        with terminal(stage, "--drain", "60s") as at:
            in_the_middle(stage, at)
            for heard in ("SIGINT: starting nothing more", "cancelling 2 at RunPod"):
                at.type(b"\x03")
                at.wait_for(heard)
                pause(1.05)
            at.type(b"\x03")
            assert at.process.wait(DEADLINE_S) == EXIT_INTERRUPTED
            at.wait_for("leaving at once; --resume goes on from the ledger")
            wait_until(lambda: at.shown.endswith(b"\r\n"), "the last line")
        assert b"\x1b[?" not in at.shown  # no mode was changed: neither the cursor hidden, nor another screen taken
    stage.check_sound(reported=False)
    stage.go()


@pytest.mark.parametrize("name", ["HUP", "INT"])
def test_a_signal_that_we_were_started_to_ignore_is_ignored(tmp_path: Path, server: Server, name: str) -> None:
    """That is what nohup is for, and a shell's background job is not meant by Ctrl-C."""
    stage = Stage.make(tmp_path, server)
    words = ["sh", "-c", f'trap "" {name}; exec "$@"', "sh", sys.executable, "-m", "runner", *stage.words()]
    process = subprocess.Popen(
        words, cwd=stage.folder, env=environment(stage.env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    stage.go(0)
    stage.wait_settled(1)
    process.send_signal(signal.Signals[f"SIG{name}"])
    stage.go()
    ran = finish(process)
    assert (ran.code, "SIG" in ran.err) == (0, False), ran.err
    stage.check_whole()


@pytest.mark.parametrize(("gone", "words"), [("stdout", []), ("stderr", []), ("stderr", ["-v"])])
def test_a_reader_that_is_gone_changes_neither_the_batch_nor_its_exit_code(
    tmp_path: Path, server: Server, gone: str, words: list[str]
) -> None:
    """``runner run … | head`` is no reason to lose a night's work, or to look as if it had failed."""
    stage = Stage.make(tmp_path, server)
    process = stage.start(*words)
    stage.wait_began(0, 1)
    getattr(process, gone).close()
    setattr(process, gone, None)
    stage.go()
    ran = finish(process)
    assert ran.code == 0
    assert (ran.err or "").splitlines()[1:] == []
    stage.check_whole()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_an_embedded_endpoint_ends_with_its_batch(tmp_path: Path, name: str) -> None:
    """No worker holds a GPU of a machine that is shut down; what it ran is pending again, and was not paid."""
    stage = Stage.make(tmp_path)
    process = stage.start("--drain", "100ms")
    stage.go(0, 1)
    stage.wait_settled(2)
    stage.wait_began(2, 3)
    process.send_signal(signal.Signals[name])
    said(process, f"{name}: starting nothing more; following 2 in flight for 0.1s")
    ran = finish(process)
    assert ran.code == EXIT_TERMINATED, ran.err
    stage.check_sound()
    assert stage.outcomes() == {0: "completed", 1: "completed"}
    stage.go()
    assert stage.run("--resume").code == 0
    stage.check_whole()
