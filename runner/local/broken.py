"""Say why an endpoint's workers can't start."""

from collections.abc import Sequence
from pathlib import Path

from runner.errors import UsageError
from runner.values import JsonObject


class HandlerError(UsageError):
    """Raised when a handler can't be imported, or its worker exits before it could take a job."""


def from_report(handler: str, report: JsonObject) -> HandlerError:
    """The error for what a worker reported of its handler, ``PATH.py:function``."""
    message = report.get("message") or report.get("reason") or "no reason was given"
    place = f" ({report['place']})" if report.get("place") else ""
    fix = report.get("fix")
    return HandlerError(f"{shown(handler)} can't be imported: {message}{place}", fix=fix if fix else None)


def from_exit(handler: str, exit_code: int, output: Sequence[str]) -> HandlerError:
    """The error for a worker that exited before it was ready, with its last lines."""
    how = f"was killed by signal {exit_code - 128}" if exit_code > 128 else f"exited with code {exit_code}"
    said = f"; its last words: {' | '.join(output)}" if output else ""
    return HandlerError(f"the worker of {shown(handler)} {how} before it was ready{said}")


def not_started(handler: str, error: OSError) -> HandlerError:
    """The error for a worker process that the system did not start."""
    return HandlerError(f"the worker of {shown(handler)} can't be started: {error}")


def too_slow(handler: str, limit_s: float) -> HandlerError:
    """The error for a worker that did not get ready in time."""
    return HandlerError(
        f"the worker of {shown(handler)} was not ready after {limit_s:g}s",
        fix="look for what its file does at import: a download, a large model, an endless loop",
    )


def shown(handler: str) -> str:
    """The handler with its path as short as people would type it."""
    path, _, name = handler.rpartition(":")
    here = Path.cwd()
    file = Path(path)
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{name}"
