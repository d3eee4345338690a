"""What a person sees while a batch runs: on a terminal, in a log, in a notebook."""

import asyncio
import io
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
from job_files import write
from terminal import ROOT, environment, wait_until

import runner
from runner import progress
from runner.batch import Folder
from runner.live import Live
from runner.progress import Display, Watched, line, pause_s, say, showing, states
from runner.states import Outcome, State
from runner.tally import Tally


def tally() -> Tally:
    """Two jobs on their way."""
    found = Tally({"photos": 600, "captions": 3})
    found.jobs["photos"].settle(State.SUCCEEDED, Outcome.COMPLETED, 90)
    found.jobs["photos"].settle(State.FAILED, Outcome.CRASHED, 10)
    found.jobs["photos"].in_flight = 8
    return found


def test_a_plain_line_sums_up_all_jobs() -> None:
    """It is what a log file keeps."""
    assert states(tally()) == "100 of 603 runs settled: 90 succeeded, 10 failed; 8 in flight"
    assert states(Tally({"job": 2})) == "0 of 2 runs settled"


def watched(*, settled_before: int = 0, rate: float | None = 0.001) -> tuple[Watched, Live]:
    """A batch whose display begins now."""
    live = Live(Folder(Path("horses/20261123T022312Z-7f3a")), Tally({"photos": 600}), {}, resumed=bool(settled_before))
    live.usd_per_s = {"photos": rate}
    live.tally.jobs["photos"].settle(State.SUCCEEDED, Outcome.COMPLETED, settled_before)
    live.tally.jobs["photos"].settled_before = settled_before
    found = Watched(live, 100.0)
    found.view(100.0)
    return found, live


def carried(live: Live, count: int) -> None:
    """So many runs of a second each."""
    for _ in range(count):
        live.tally.jobs["photos"].ended(1000)
        live.tally.jobs["photos"].settle(State.SUCCEEDED, Outcome.COMPLETED)


def test_a_plain_line_says_how_fast_it_goes_and_what_it_costs() -> None:
    """Who looks at a log of the night wants to know when it will be over."""
    found, live = watched()
    carried(live, 100)
    assert line(found.view(120.0)) == (
        "100 of 600 runs settled: 100 succeeded; 5.0/s, about 1m40s left;"
        " at least 0.1000 USD, execution only, 18.00 USD/h"
    )


def test_time_left_counts_only_what_this_process_did() -> None:
    """After a resume the runs of yesterday would promise far too much."""
    found, live = watched(settled_before=400, rate=None)
    carried(live, 100)
    assert line(found.view(120.0)) == "500 of 600 runs settled: 500 succeeded; 5.0/s, about 20s left"


def test_plain_lines_are_fewer_the_longer_it_takes() -> None:
    """CI kills what says nothing for long; a day's log is read by people."""
    at_s, lines = 0.0, 0
    while at_s < 86_400:
        at_s += pause_s(at_s)
        lines += 1
    assert 250 < lines < 400
    assert [pause_s(at_s) for at_s in (0, 60, 599, 600, 3600)] == [10, 30, 30, 60, 300]


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    """Closing the window must not end what somebody pays for."""

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

    say("anything", Gone())


async def test_a_log_gets_lines_and_nothing_that_moves_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI shows what comes, as it comes."""
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", ((60.0, 0.01),))
    has_three = asyncio.Event()

    class Log(io.StringIO):
        def flush(self) -> None:
            if self.getvalue().count("\n") >= 3:
                has_three.set()

    out = Log()
    _, live = watched()
    live.tally.jobs["photos"].in_flight = 3
    async with showing(Display(out, {"TERM": "xterm"})) as show:
        show(live)
        await has_three.wait()
    said = out.getvalue().splitlines()
    assert said[0] == "running horses 20261123T022312Z-7f3a: 600 runs"
    assert re.fullmatch(r"\d+ms: 0 of 600 runs settled; 3 in flight", said[1])
    assert not set(out.getvalue()) & {"\r", "\x1b"}


async def test_a_notebook_is_told_how_far_it_is_if_it_wants_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its loop runs already, and its stderr is no terminal: plain lines, and by default not a word."""
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", ((60.0, 0.05),))
    path = write(tmp_path, {"rows": {"repeat": 3}})
    quiet = await runner.run(path, output_dir=tmp_path / "quiet")
    assert (quiet.exit_code, capsys.readouterr()) == (0, ("", ""))
    told = await runner.run(path, output_dir=tmp_path / "told", progress=True)
    out, err = capsys.readouterr()
    assert (told.exit_code, out) == (0, "")
    assert err.startswith(f"running t {told.folder.id}: 3 runs\n")
    assert not set(err) & {"\r", "\x1b"}


def shown_on(term: str, tmp_path: Path, **env: str) -> Iterator[bytes]:
    """What a terminal gets of ``runner run jobs/hello.yaml``, as it comes."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "run", ROOT / "jobs/hello.yaml", "--output-dir", tmp_path],
        env=environment({"TERM": term} | env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        yield data
    os.close(ours)
    assert process.wait(30) == 0


def test_a_terminal_gets_a_live_table_and_then_the_summary(tmp_path: Path) -> None:
    """The table goes when the batch ends; what stays is what came of it."""
    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    tables: list[list[str]] = []
    for data in shown_on("screen-256color", tmp_path, NO_COLOR="1"):
        assert not re.search(rb"\x1b\[[0-9;]*m", data)
        stream.feed(data)
        shown = [line.rstrip() for line in screen.display]
        tables.append([line for line in shown if line.startswith("job ")])
    assert max(map(len, tables)) == 1
    assert shown[0].startswith("running hello 2")
    assert shown[1].startswith("pass: hello 2")
    assert not [line for line in shown if "Ctrl-C" in line or line.startswith("job ")]


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    """Emacs' shell, a serial console: what can't move a cursor would show codes."""
    text = b"".join(shown_on("dumb", tmp_path))
    assert text.startswith(b"running hello ")
    assert b"\x1b" not in text
    assert b"\r" not in text.replace(b"\r\n", b"\n")


SHELL = """
import fcntl, os, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp("bash", ["bash", "--norc", "-i"])
"""


def test_a_shell_keeps_what_it_writes_below_the_table(tmp_path: Path) -> None:
    """In the background nothing is drawn; after Ctrl-Z the lines below are the shell's, and fg draws below them."""
    waits = f"import pathlib, time\n\ndef handler(_):\n    while not pathlib.Path({str(tmp_path / 'go')!r}).exists():\n"
    path = write(tmp_path, {"rows": {"repeat": 2}})
    (tmp_path / "echo.py").write_text(waits + "        time.sleep(0.02)\n    return 1\n")
    ours, theirs = pty.openpty()
    env = environment({"TERM": "xterm", "PS1": "$ ", "NO_COLOR": "1"})
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL], stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    )
    os.close(theirs)
    screen = pyte.Screen(80, 60)
    stream = pyte.ByteStream(screen)

    def shown() -> list[str]:
        if select.select([ours], [], [], 0.02)[0]:
            stream.feed(os.read(ours, 65536))
        return [line.rstrip() for line in screen.display if line.strip()]

    def type_(keys: str, then: Callable[[list[str]], bool], what: str) -> list[str]:
        os.write(ours, keys.encode())
        wait_until(lambda: then(shown()), what)
        return shown()

    def tables(lines: list[str]) -> int:
        return sum(line.startswith("job  ") for line in lines)

    try:
        command = f"{sys.executable} -m runner run {path} &\n"
        type_(command, lambda lines: any("running t 2" in line for line in lines), "the batch to begin")
        echoed = type_("sleep 1; echo $((1+1))\n", lambda lines: "2" in lines, "the shell to go on")
        assert tables(echoed) == 0
        type_("fg\n", lambda lines: tables(lines) == 1, "the table")
        type_("\x1a", lambda lines: any("Stopped" in line for line in lines), "the stop")
        type_("echo $((2+2))\n", lambda lines: "4" in lines, "the shell to be there")
        lines = type_("fg\n", lambda lines: tables(lines) == 2, "another table")
        assert lines.index("4") < max(number for number, line in enumerate(lines) if line.startswith("job  "))
        (tmp_path / "go").touch()
        lines = type_("", lambda lines: any(line.startswith("pass: t 2") for line in lines), "the end")
        assert "4" in lines
    finally:
        (tmp_path / "go").touch()
        os.write(ours, b"\nexit\n")
        shell.terminate()
        shell.kill()
        shell.wait()
        os.close(ours)
