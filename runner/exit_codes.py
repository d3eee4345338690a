"""
What each exit code of the command means, and what to do next: the one table that help and docs are made of.

``python -m runner.exit_codes`` prints `docs/exit-codes.md`.
"""

import textwrap

from runner import errors
from runner.records import record


@record(frozen=True, slots=True)
class ExitCode:
    """
    An exit code. *short* is for one line of help; *means* and *then* are for the page.

    *again*: whether the same command may be given again by a script, at its next time, without anybody looking.
    """

    code: int
    short: str
    means: str
    then: str
    again: bool


TABLE = (
    ExitCode(
        errors.EXIT_PASS,
        "pass",
        "Every threshold holds; without thresholds, every run succeeded. Of other commands: done.",
        "Use `results.jsonl` in the batch's folder. There is nothing to look at.",
        again=True,
    ),
    ExitCode(
        errors.EXIT_FAIL,
        "not",
        "Every run has its result, and the verdict is no pass: a threshold does not hold, runs failed, or the batch "
        "was stopped by `stop_when`, `timeouts.job` or `runner cancel`. Or the batch folder could not be written. Of "
        "`runner verify`: a file is not as it was written.",
        "Read the summary, or `runner report BATCH --open`. `runner resume BATCH --retry-failed` runs again what did "
        "not succeed, and pays for it again. Where the folder could not be written, make room, then `--resume`.",
        again=True,
    ),
    ExitCode(
        errors.EXIT_INVALID,
        "invalid",
        "The job file, its data or the command line is wrong, or an unfinished batch stands in the way. Nothing was "
        "sent.",
        "Mend what is named, at its line and column; `runner validate FILE --strict` says when all is well. Beside an "
        "unfinished batch: `--resume` goes on with it, `--fresh` leaves it.",
        again=False,
    ),
    ExitCode(
        errors.EXIT_BUG,
        "our bug",
        "runner itself failed, and shows its traceback. What was sent is recorded.",
        "Report it with the traceback, which holds no secret. `runner run FILE --resume` loses nothing, and pays for "
        "nothing twice knowingly.",
        again=False,
    ),
    ExitCode(
        errors.EXIT_REFUSED,
        "endpoint refused",
        "An endpoint takes no jobs: a wrong key, an unknown id, no credit, paused, never reached, or not what "
        "`health.require` asks for. Nothing more was submitted to it; what was, was followed to its end.",
        "`runner health FILE` says why, and which setting to change. Then `runner run FILE --resume`.",
        again=True,
    ),
    ExitCode(
        errors.EXIT_BUSY,
        "already running",
        "Another process runs a batch of this job file in this folder. Nothing was sent by this one.",
        "Wait for it: `runner status NAME` shows where it stands. If it is every night, let it begin less often, or "
        "give its jobs a `timeouts.job`.",
        again=True,
    ),
    ExitCode(
        errors.EXIT_INTERRUPTED,
        "interrupted",
        "Ctrl-C ended it. What is not settled waits.",
        "`runner run FILE --resume` goes on: it follows what is at RunPod first. `runner cancel NAME` ends it for "
        "good.",
        again=True,
    ),
    ExitCode(
        errors.EXIT_TERMINATED,
        "terminated",
        "A SIGTERM or a SIGHUP ended it: a shutdown, a deadline, a terminal that was closed. What is not settled "
        "waits.",
        "`runner run FILE --resume` goes on: it follows what is at RunPod first.",
        again=True,
    ),
)
"""All of them, in order. No other code is ever made by runner itself."""

_PAGE = """\
# Exit codes

What a script does next; made by `make schema` from the table that `runner run --help` shows. *Again* says whether the
same command with `--resume` may be given again at its next time without anybody looking, as cron does: nothing is then
lost, and nothing is paid for twice knowingly.

| code | means | what to do next | again |
|---|---|---|---|
{rows}

A process that was killed (SIGKILL, no memory, power) has no code of ours: a shell says 137. `--resume` goes on then,
too. Under `timeout`, as `runner schedule FILE --crontab` has it, 137 means that it did not end within a minute of its
deadline.

<!-- not run: its words stand for your own -->
```sh
runner run nightly.yaml --resume --quiet
case $? in
  0) use-the-results batches/nightly/latest/results.jsonl ;;
  1) tell-somebody "look at the report" ;;
  4) tell-somebody "look at the endpoint" ;;
  5 | 130 | 143) ;;   # the next start goes on
  *) tell-somebody "mend it: until then it can not run" ;;
esac
```
"""


def short() -> str:
    """All codes in a line."""
    return f"Exit codes: {', '.join(f'{one.code} {one.short}' for one in TABLE)}."


def epilog() -> str:
    """What follows the help of a command: each code and its next step, as click keeps the lines."""
    lines = ["\b", "Exit codes, and what to do next:"]
    for one in TABLE:
        text = f"{one.short}: {one.then}"
        lines += textwrap.wrap(text, 78, initial_indent=f"  {one.code:<5}", subsequent_indent=" " * 7)
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page, as the file has it."""
    rows = [f"| {one.code} | {one.means} | {one.then} | {'yes' if one.again else 'no'} |" for one in TABLE]
    return _PAGE.format(rows="\n".join(rows))


if __name__ == "__main__":
    print(page(), end="")
