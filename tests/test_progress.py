"""What a person sees while a batch runs."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from terminal import ROOT, environment

from runner.progress import eta, say, states, table
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


def test_the_table_has_a_line_a_job() -> None:
    """Which job is slow is what one wants to know."""
    out = io.StringIO()
    Console(file=out, width=90).print(table(tally(), 20.0))
    assert [re.split(r"\s{2,}", line.strip()) for line in out.getvalue().splitlines()[:3]] == [
        ["job", "runs", "settled", "in flight", "succeeded", "failed", "other", "eta"],
        ["photos", "600", "100", "8", "90", "10", "0", "1m40s"],
        ["captions", "3", "0", "0", "0", "0", "0"],
    ]


def test_what_is_wrong_with_an_endpoint_stands_below_the_table() -> None:
    """A queue that does not move looks like slow runs; and what a service says is no markup."""
    out = io.StringIO()
    said = "endpoint sdxl: can't be told: [bold]HTTP 503[/bold]"
    Console(file=out, width=90).print(table(tally(), 20.0, said=[said]))
    assert said in out.getvalue().splitlines()[-1]


def test_time_left_counts_only_what_this_process_did() -> None:
    """After a resume the runs of yesterday would promise far too much."""
    job = tally().jobs["photos"]
    job.settled_before = 50
    assert eta(job, 10.0) == "1m40s"


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    """Closing the window must not end what somebody pays for."""

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

    say("anything", Gone())


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_a_live_table_and_then_the_summary(tmp_path: Path, no_color: bool) -> None:
    """The table goes when the batch ends; what stays is what came of it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "run", ROOT / "jobs/hello.yaml", "--output-dir", tmp_path],
        env=environment({"TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_color else {})),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        text += data
    os.close(ours)
    assert process.wait(30) == 0
    shown = text.decode()
    assert "settled" in shown
    assert shown.rindex("pass: hello") > shown.rindex("settled")
    assert re.search(r"\x1b\[3\dm", shown) is None or not no_color
