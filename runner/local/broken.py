"""Say why an endpoint's workers can't start."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.errors import UsageError
from runner.plain import plain
from runner.values import JsonObject


class HandlerError(UsageError):
    """Raised when a handler can't be imported, or its worker exits before it could take a job."""


@dataclass(frozen=True, slots=True)
class Source:
    """What workers are made of, for messages: a handler, ``PATH.py:function``, or else a command."""

    name: str
    worker: str
    is_command: bool = False

    @classmethod
    def of_handler(cls, handler: str) -> "Source":
        """Its path is shown as short as people would type it."""
        path, _, name = handler.rpartition(":")
        here, file = Path.cwd(), Path(path)
        shown = f"{file.relative_to(here) if file.is_relative_to(here) else file}:{name}"
        return cls(shown, f"the worker of {shown}")

    @classmethod
    def of_command(cls, command: Sequence[str]) -> "Source":
        """The command is shown as a shell would take it."""
        shown = f"'{plain(shlex.join(command))}'"
        return cls(shown, f"the worker {shown}", is_command=True)


def from_report(source: Source, report: JsonObject) -> HandlerError:
    """The error for what a worker reported before it exits: ours of its handler, any other of its own checks."""
    if "message" not in report:
        said = ": ".join(plain(str(report[key])) for key in ("check", "reason") if report.get(key))
        return HandlerError(f"{source.worker} calls itself unhealthy: {said or 'it does not say why'}")
    place = f" ({report['place']})" if report.get("place") else ""
    fix = report.get("fix")
    message = plain(f"{report['message']}{place}")
    return HandlerError(f"{source.name} can't be imported: {message}", fix=str(fix) if fix else None)


def from_exit(source: Source, exit_code: int, output: Sequence[str]) -> HandlerError:
    """The error for a worker that exited before it was ready, with its last lines."""
    how = f"was killed by signal {exit_code - 128}" if exit_code > 128 else f"exited with code {exit_code}"
    said = f"; its last words: {' | '.join(map(plain, output))}" if output else ""
    return HandlerError(f"{source.worker} {how} before it was ready{said}", fix=_GOES_ON if exit_code == 0 else None)


_GOES_ON = "a worker goes on asking for jobs until it is ended, as runpod.serverless.start does"


def not_started(source: Source, error: OSError) -> HandlerError:
    """The error for a worker process that the system did not start."""
    return HandlerError(f"{source.worker} can't be started: {error}")


def too_slow(source: Source, limit_s: float) -> HandlerError:
    """The error for a worker that did not get ready in time."""
    return HandlerError(
        f"{source.worker} was not ready after {limit_s:g}s",
        fix="look for what it does before its first job: a download, a large model, an endless loop"
        if source.is_command
        else "look for what its file does at import: a download, a large model, an endless loop",
    )
