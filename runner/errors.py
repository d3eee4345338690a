"""
The exception tree, with exit codes.

    RunnerError                    what a person can mend; shown without a traceback
    ├── UsageError            2    wrong arguments, or a folder that can't be used; nothing was sent
    ├── JobFileError          2    problems in a job file or its data, each with its place; nothing was sent
    ├── EndpointRefused       4    an endpoint will not take our jobs: nothing more is submitted to it
    ├── BatchBusy             5    another process is running a batch of this name in this folder
    └── RecordError           1    the batch folder can't be written; what is remote is left to resume

    RunPodError                    one call to RunPod's API; never shown as such, it becomes an outcome
    ├── NotSent                    surely not accepted: sending it again can't pay twice
    │   ├── Unreachable            no connection: refused, DNS, TLS, timeout while connecting
    │   └── RateLimited            HTTP 429
    ├── AnswerLost                 maybe accepted: reset, timeout, 408, 5xx, or an answer that names no job
    │   └── Unreadable             an answer came, whole, but it is not the JSON we can read
    └── Refused                    RunPod understood, and said no (4xx)
        ├── Unauthorized           401
        ├── PaymentRequired        402
        ├── Forbidden              403
        ├── NotFound               404: the job or the endpoint is unknown
        ├── Unsupported            405 and 501: this operation is not there
        ├── Paused                 409: the endpoint has no workers allowed
        └── TooLarge               413, or 400 with RunPod's words for it

Anything that is none of these is our bug: exit code 3, with its traceback.
"""

from collections.abc import Iterable, Sequence
from dataclasses import field, replace

from runner.records import record

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_INVALID = 2
EXIT_BUG = 3
EXIT_REFUSED = 4
EXIT_BUSY = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


@record(frozen=True, slots=True)
class Via:
    """
    How a part of a job file takes effect elsewhere than where it is written.

    *job* is the one that has it from `defaults`, None when there is no other that could be meant; *jobs* are all that
    have it. *profile* is the one it is written in, None for the file's own.
    """

    job: str | None
    jobs: frozenset[str]
    profile: str | None


@record(frozen=True, slots=True)
class Problem:
    """
    One thing that is wrong in a file, and how to mend it.

    Lines and columns count from 1. *source* is the line's text, None when there is no line to show.
    *warning* problems don't make a file invalid by themselves. *via* is None for what takes effect where it is written.
    """

    file: str
    line: int
    column: int
    message: str
    fix: str | None = None
    source: str | None = None
    warning: bool = False
    via: Via | None = field(default=None, compare=False, repr=False)

    def render(self) -> str:
        """The problem as people read it: place and message, source line and caret, fix."""
        word = "warning: " if self.warning else ""
        lines = [f"{self.file}:{self.line}:{self.column}: {word}{self.message}"]
        if self.source is not None:
            number = f"{self.line:>4}"
            shown, column = _clip(self.source, self.column)
            lines += [f"{number} | {shown}", f"{' ' * len(number)} | {' ' * (column - 1)}^"]
        if self.fix is not None:
            lines.append(f"  help: {self.fix}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The problem as ``--format json`` prints it."""
        shown: dict[str, object] = {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "fix": self.fix,
        }
        return shown | {"warning": True} if self.warning else shown


def told_once(problems: Iterable[Problem]) -> list[Problem]:
    """*problems*, each once. What only some jobs have that share a default is told with their names."""
    jobs: dict[Problem, list[str]] = {}
    for problem in problems:
        names = jobs.setdefault(problem, [])
        if problem.via is not None and problem.via.job is not None:
            names += [problem.via.job] if problem.via.job not in names else []
    return [_with_jobs(problem, names) for problem, names in jobs.items()]


def _with_jobs(problem: Problem, names: Sequence[str], most: int = 3) -> Problem:
    """*problem* with the *names* of the jobs that have it, where they say more than its place."""
    if problem.via is None or not names:
        return problem
    told = replace(problem, via=replace(problem.via, job=None))
    if (problem.via.jobs == set(names) and len(names) > 1) or f"job '{names[0]}'" in problem.message:
        return told
    *first, last = [f"'{name}'" for name in names[:most]] + ([f"{len(names) - most} more"] if names[most:] else [])
    shown = f"{', '.join(first)} and {last}" if first else last
    return replace(told, message=f"{problem.message} (in {'jobs' if first else 'job'} {shown})")


def _clip(source: str, column: int, width: int = 120) -> tuple[str, int]:
    """*source* safe and short enough for a terminal, and the caret's column in it."""
    text = "".join(c if c.isprintable() else " " for c in source.rstrip("\r\n"))
    if len(text) <= width:
        return text, column
    start = max(0, min(column - 1 - width // 2, len(text) - width))
    return text[start : start + width], column - start


class RunnerError(Exception):
    """What a person can mend. The message says what, where and how."""

    exit_code = EXIT_FAIL

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def render(self) -> str:
        """The error as people read it."""
        return f"error: {self.message}" + (f"\n  help: {self.fix}" if self.fix else "")


class UsageError(RunnerError):
    """Raised when arguments or a folder can't be used; nothing was sent."""

    exit_code = EXIT_INVALID


class JobFileError(RunnerError):
    """
    Raised when a job file, or data it reads, is invalid; nothing was sent.

    *problems* are in file order, each once; *found* has them as they were given.
    """

    exit_code = EXIT_INVALID

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.found = tuple(problems)
        self.problems = tuple(sorted(told_once(problems), key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(problem.render() for problem in self.problems))

    def render(self) -> str:
        """Every problem, in file order."""
        return self.message


class EndpointRefused(RunnerError):
    """Raised when an endpoint will not take jobs: wrong key, unknown, paused for too long, never reached."""

    exit_code = EXIT_REFUSED


class BatchBusy(RunnerError):
    """Raised when another process holds the lock of this batch name and output folder."""

    exit_code = EXIT_BUSY


class RecordError(RunnerError):
    """Raised when the batch folder can't be written; what is remote is left to resume."""

    exit_code = EXIT_FAIL


class RunPodError(Exception):
    """
    Raised when one call to RunPod's API brought no usable answer.

    *status* is the HTTP status, None when no answer came. *detail* is at most 2 KB of what RunPod said, control
    characters removed: evidence for a person, never read by us.
    """

    def __init__(self, message: str, *, status: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.detail = detail


class NotSent(RunPodError):
    """Raised when surely nothing was accepted: the same request may be sent again."""


class Unreachable(NotSent):
    """Raised when no connection came about: refused, DNS, TLS, or a timeout while connecting."""


class RateLimited(NotSent):
    """Raised on HTTP 429: nothing was accepted. *retry_after_s* is None when RunPod did not say."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, detail: str = "") -> None:
        super().__init__(message, status=429, detail=detail)
        self.retry_after_s = retry_after_s


class AnswerLost(RunPodError):
    """Raised when a request may have been acted upon: a submit may have made a job that is paid for."""


class Unreadable(AnswerLost):
    """
    Raised when a whole answer came that is not the JSON object this operation returns.

    *body* is that answer, to be kept as a file: its first 8 MiB at most, our key masked in it, otherwise unaltered. It
    is None where nobody has it.
    """

    def __init__(self, message: str, *, status: int | None = None, detail: str = "", body: bytes | None = None) -> None:
        super().__init__(message, status=status, detail=detail)
        self.body = body


class Refused(RunPodError):
    """Raised when RunPod understood and said no, with a 4xx that has no class of its own."""


class Unauthorized(Refused):
    """Raised on 401: the key is missing, wrong or revoked; no call to this endpoint will do better."""


class PaymentRequired(Refused):
    """Raised on 402: the account can't pay; nothing more will be accepted."""


class Forbidden(Refused):
    """Raised on 403: the key may not do this here, or a firewall stood in between."""


class NotFound(Refused):
    """Raised on 404: the job is unknown, expired or never was, or the endpoint is."""


class Unsupported(Refused):
    """Raised on 405 and 501: this server has no such operation."""


class Paused(Refused):
    """Raised on 409: the endpoint allows no workers (``ENDPOINT_PAUSED``); it may be tried again, slowly."""


class TooLarge(Refused):
    """Raised on 413, on RunPod's 400 for a body over its limit, and on an answer larger than we take."""
